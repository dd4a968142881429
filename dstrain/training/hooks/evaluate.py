"""When to score the model, which score was best, and when to stop early. Does not know how to score."""

import logging
import math
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dstrain.checkpoint.changes import Part
from dstrain.cluster.process_group import Ranks
from dstrain.cluster.walltime import ALLOCATION_ENDS, WallTime
from dstrain.config.evaluation import Evaluation
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.evaluation.result import EvaluationResult
from dstrain.evaluation.samples import describe_samples
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.ranking import NUM_CONSTANT, describe_constants, rank
from dstrain.run_folder.rows import EvalRow
from dstrain.run_folder.scores import ScoredTexts, Scores, describe_scores, write_scores
from dstrain.training.meters import LossMeter
from dstrain.training.save_clock import SaveClock
from dstrain.training.state import Control, Hook, Progress, StepInfo
from dstrain.training.ties import is_tied

REHEARSAL_BATCHES = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an evaluation is beside the best so far."""

    is_best: bool
    improved: bool
    """Whether early stopping counts it as an improvement."""
    is_tied: bool = False
    """Whether it is better, but not beyond chance, so that the older one stays the best."""


def is_due(settings: Evaluation, *, step: int, epoch: float, since_epoch: float) -> bool:
    """Whether the recipe requires an evaluation after a step, which ends at `epoch` and began at `since_epoch`."""
    if settings.every_steps is not None:
        return step % settings.every_steps == 0
    if settings.every_epochs is not None:
        rounding = 1e-9  # the epoch is a quotient, which may end just below a whole number
        before, after = (math.floor(end / settings.every_epochs + rounding) for end in (since_epoch, epoch))
        return after > before
    return False


class EvaluationHook(Hook):
    """What both ways of evaluating share: the cadence, the training loss between evaluations, and the best score."""

    name = "evaluate"

    def __init__(self, *, config: RunConfig, ranks: Ranks) -> None:
        self._config = config
        self._ranks = ranks
        self._loss = LossMeter(ranks)
        self._epoch = 0.0
        self._num_worse = 0
        self._improved_step: int | None = None  # of the last evaluation that early stopping counted as an improvement
        self._recent: list[dict[str, float]] = []  # scores of the last evaluations, oldest first
        self._is_postponed = False
        self.best: dict[str, Any] | None = None
        """`{"step", "scores"}` of the best evaluation by the recipe's metrics; the oldest of equal ones."""
        self.scores_since = 0
        """The attempt from which on evaluations compete: earlier ones had another metric, search or rows."""

    @property
    def kept_steps(self) -> list[int]:
        """Steps whose weights must not be pruned."""
        return [int(self.best["step"])] if self.best else []

    def scores_of(self, step: int) -> dict[str, float] | None:
        """The scores of the weights as they are at `step`; None if they were not evaluated at that step."""
        return None

    def state(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "num_worse": self._num_worse,
            "improved_step": self._improved_step,
            "recent": self._recent,
            "is_owed": self._is_postponed,
            "epoch": self._epoch,
            "loss": self._loss.state(),
            "scores_since": self.scores_since,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        best = state["best"]
        if best is not None and "value" in best:  # written before ties were broken by further scores
            best = {"step": best["step"], "scores": {self._config.best_metric: best["value"]}}
        # as numbers, since they are compared with those of the next evaluation, much later
        self.best = best and {
            "step": int(best["step"]),
            "scores": {name: float(score) for name, score in best["scores"].items()},
        }
        self._num_worse = int(state["num_worse"])
        improved_step = state.get("improved_step", best and best["step"])
        self._improved_step = None if improved_step is None else int(improved_step)
        self._recent = state.get("recent", [])
        self._is_postponed = state.get("is_owed", False)
        self._epoch = state["epoch"]
        self._loss.load_state(state["loss"])
        self.scores_since = state.get("scores_since", 0)

    def reset(self, parts: Collection[Part], *, attempt: int) -> list[str]:
        said = []
        if Part.LOSS in parts:
            self._loss.reset()
        if Part.SCORES in parts:
            told = f", at step {self.best['step']}," if self.best else ""
            said.append(f"the best score is reset: the one so far{told} was of another metric, search or of other rows")
            self.best, self._improved_step, self._recent, self.scores_since = None, None, [], attempt
        if self._num_worse and (Part.SCORES in parts or Part.PATIENCE in parts):
            said.append(f"early stopping is reset; evaluations without improvement so far: {self._num_worse}")
            self._num_worse = 0
        return said

    def _count(self, info: StepInfo) -> bool:
        """Add a step to the training loss; returns whether an evaluation follows it."""
        self._loss.add(info.result.loss_sum, num_tokens=info.target_tokens)
        is_at_cadence = is_due(self._config.evaluation, step=info.step, epoch=info.epoch, since_epoch=self._epoch)
        self._epoch = info.epoch
        return is_at_cadence or info.is_last


class EvaluateHook(EvaluationHook):
    """Evaluates at the recipe's cadence and at the end, keeps the best model, stops early."""

    def __init__(
        self,
        *,
        config: RunConfig,
        ranks: Ranks,
        walltime: WallTime,
        save_clock: SaveClock,
        evaluate: Callable[[int | None], EvaluationResult | None],
        export_best: Callable[[int], None],
        agree_on_stop: Callable[[Control], None],
    ) -> None:
        """`evaluate(max_batches)` returns a result on rank 0 and None elsewhere; None everywhere if it was interrupted.

        All ranks call `export_best(step)`, and `agree_on_stop` after an interrupted evaluation.
        """
        super().__init__(config=config, ranks=ranks)
        self._walltime = walltime
        self._save_clock = save_clock
        self._evaluate = evaluate
        self._export_best = export_best
        self._agree_on_stop = agree_on_stop
        self._latest: tuple[int, dict[str, float]] | None = None
        self._warned: set[str] = set()

    def scores_of(self, step: int) -> dict[str, float] | None:
        return self._latest[1] if self._latest and self._latest[0] == step else None

    def on_start(self, progress: Progress, control: Control) -> None:
        if self._config.evaluation.rehearsal and progress.step == 0:
            started = time.perf_counter()
            self._check_rehearsal(self._evaluate(REHEARSAL_BATCHES))
            seconds = time.perf_counter() - started
            log.info("rehearsal: evaluated %d batches before step 1 in %.1f s", REHEARSAL_BATCHES, seconds)
        if self._is_postponed:  # the run was stopped at a step with an evaluation
            self._score(progress.step, self._epoch, control)
        self._stop_early(control)

    def on_step(self, info: StepInfo, control: Control) -> None:
        since_epoch = self._epoch
        self._is_postponed = self._count(info)
        if control.stop_reason is not None:
            return
        if not self._is_postponed:
            self._save_before_next(info, control, step_epochs=info.epoch - since_epoch)
        elif self._ranks.broadcast(self._walltime.fits_evaluation(), bool):  # rank 0 decides: clocks differ
            self._score(info.step, info.epoch, control)
        else:
            log.info(
                "the evaluation of step %d would not finish before the allocation ends; it will run first after the "
                "restart",
                info.step,
            )
            control.request_stop(ALLOCATION_ENDS, preempted=True)

    def _save_before_next(self, info: StepInfo, control: Control, *, step_epochs: float) -> None:
        """Request a save if the evaluation after the next step would hold up one that becomes due meanwhile."""
        step, epoch = info.step + 1, info.epoch + step_epochs
        is_next = step >= info.total_steps or is_due(
            self._config.evaluation, step=step, epoch=epoch, since_epoch=info.epoch
        )
        if not is_next:
            return
        seconds = self._walltime.durations.get("evaluation", 0.0)
        is_due_before = self._save_clock.is_due(within_seconds=seconds) and self._walltime.fits_save()
        if self._ranks.broadcast(is_due_before, bool):
            control.request_checkpoint()

    def _score(self, step: int, epoch: float, control: Control) -> None:
        started = time.perf_counter()
        train_loss = self._loss.mean()
        result = self._evaluate(None)
        scores = self._ranks.broadcast(result.scores.scores if result is not None else None, dict[str, float] | None)
        if scores is None:  # interrupted: repeated first after the restart
            self._is_postponed = True
            self._agree_on_stop(control)
            return
        self._is_postponed = False
        self._loss.reset()
        seconds = time.perf_counter() - started
        self._walltime.record_duration("evaluation", seconds)
        found = self._save(result, step=step, seconds=seconds) if result is not None else None
        verdict = self._judge(scores, step)  # by the row statistics that were just written
        if found is not None and result is not None:
            told: dict[str, Any] = {"train_loss": train_loss, "is_tied": verdict.is_tied}
            control.record(EvalRow(**found.as_fields(), step=step, epoch=epoch, **told))
            self._show(found, texts=result.texts, step=step, verdict=verdict)
        self._latest = (step, scores)
        self._warn_of_constants(scores)
        self._accept(verdict, scores, step)
        if verdict.is_best or self._config.checkpoint.every_steps is None:
            control.request_checkpoint()  # the best model always has a checkpoint
        self._stop_early(control)

    @property
    def _keeps_older(self) -> bool:
        return self._config.evaluation.best_by == "tied_keeps_older"

    def _check_rehearsal(self, result: EvaluationResult | None) -> None:
        """Raise UserError on rank 0 if ties are to be found by a metric whose function returns one number in all."""
        metric = self._config.best_metric.rpartition("/")[2]
        if result is None or metric not in result.scores.scores or metric in result.scores.intervals:
            return
        stopping = self._config.training.early_stopping
        if self._keeps_older or (stopping is not None and stopping.significant):
            key = "evaluation.best_by" if self._keeps_older else "training.early_stopping.significant"
            raise UserError(
                f"{key}: `{metric}` has no numbers of each row, so that no tie can be found: let its function return a number "
                "for each row, or take another evaluation.best_metric"
            )

    def _save(self, result: EvaluationResult, *, step: int, seconds: float) -> Scores:
        """Write the scores of this step with their hypotheses; returns the scores for metrics.jsonl."""
        scores = replace(result.scores, seconds=seconds)
        try:
            folder = RunFolder(Path(self._config.run_dir))
            return replace(scores, hypotheses=write_scores(result.scores, result.texts, folder=folder, step=step))
        except OSError as error:  # a full disk must not end the run
            problem = f"the hypotheses of step {step} could not be written: {error.strerror}"
            return replace(scores, warnings=(*scores.warnings, problem))

    def _show(self, found: Scores, *, texts: ScoredTexts, step: int, verdict: Verdict) -> None:
        log.info("evaluation at step %d (%.0f s): %s", step, found.seconds, describe_scores(found))
        for line in describe_samples(texts, number=self._config.logging.samples):
            log.info("%s", line)
        if verdict.is_tied and self.best:
            log.info(
                "step %d is better than step %d, but not beyond chance: the older stays the best",
                step,
                self.best["step"],
            )
        for warning in found.warnings:
            kind = re.sub(r"[\d.]+", "", warning)  # a warning that differs only in its numbers is not repeated
            if kind not in self._warned:
                self._warned.add(kind)
                log.warning(
                    "evaluation at step %d: %s (logged once; metrics.jsonl has the warnings of every evaluation)",
                    step,
                    warning,
                )

    def _warn_of_constants(self, scores: dict[str, float]) -> None:
        """Say once of each metric that may choose the best model that it stays the same."""
        self._recent = [*self._recent, scores][-NUM_CONSTANT:]
        for metric, sentence in describe_constants(self._recent, config=self._config).items():
            if metric not in self._warned and self._ranks.rank == 0:
                self._warned.add(metric)
                log.warning("%s (logged once)", sentence)

    def _judge(self, scores: dict[str, float], step: int) -> Verdict:
        """Compare scores with the best, the same on every rank."""
        if self.best is None:
            return Verdict(is_best=True, improved=True)
        stopping, ranking = self._config.training.early_stopping, self._config.ranking
        new, old = rank(scores, metrics=ranking), rank(self.best["scores"], metrics=ranking)
        is_better = new > old
        # while the metric is still 0, whatever breaks the tie shows whether the model improves
        if new[0] == old[0] == 0.0:
            return Verdict(is_better, improved=is_better)
        is_tied = is_better and self._keeps_older and self._is_tied(step, int(self.best["step"]))
        improved = new[0] - old[0] > (stopping.min_delta if stopping else 0.0)
        if improved and stopping and stopping.significant and self._improved_step is not None:
            improved = not self._is_tied(step, self._improved_step)
        return Verdict(is_better and not is_tied, improved, is_tied)

    def _is_tied(self, step: int, other: int) -> bool:
        """Whether two steps differ by chance alone; without their row statistics they do not, and a warning says so."""
        tied = False
        if self._ranks.rank == 0:
            try:
                folder = RunFolder(Path(self._config.run_dir))
                tied = is_tied(folder, metric=self._config.best_metric, step=step, other=other)
            except (UserError, OSError) as error:
                if "ties" not in self._warned:
                    log.warning(
                        "step %d counts as better than step %d, tied or not (logged once): %s", step, other, error
                    )
                self._warned.add("ties")
        agreed: bool = self._ranks.broadcast(tied, bool)
        return agreed

    def _accept(self, verdict: Verdict, scores: dict[str, float], step: int) -> None:
        """Note what an evaluation is; the weights of a new best are exported."""
        self._num_worse = 0 if verdict.improved else self._num_worse + 1
        if verdict.improved:
            self._improved_step = step
        if verdict.is_best:
            self.best = {
                "step": step,
                "scores": {name: scores[name] for name in self._config.ranking if name in scores},
            }
            self._export_best(step)

    def _stop_early(self, control: Control) -> None:
        stopping = self._config.training.early_stopping
        if stopping and self._num_worse >= stopping.patience:
            improved = f"{self._config.best_metric} has not improved{' beyond chance' if stopping.significant else ''}"
            control.request_stop(f"early stopping: {improved} in {self._num_worse} evaluations")
