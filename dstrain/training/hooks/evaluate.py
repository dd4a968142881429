"""When to score the model, which scores were best, and when they stopped improving. How to score is a callable's business."""

import logging
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dstrain.cluster.process_group import Ranks
from dstrain.cluster.walltime import ALLOCATION_ENDS, WallTime
from dstrain.config.schema import Evaluation, RunConfig
from dstrain.evaluation.evaluate import EvaluationResult, write_evaluation
from dstrain.training.meters import LossMeter
from dstrain.training.state import Control, Hook, Progress, StepInfo

REHEARSAL_BATCHES = 2

log = logging.getLogger(__name__)


def is_due(settings: Evaluation, info: StepInfo, *, since_epoch: float) -> bool:
    """Whether the recipe wants an evaluation after this step; `since_epoch` is where the step before ended."""
    if settings.every_steps is not None:
        return info.step % settings.every_steps == 0
    if settings.every_epochs is not None:
        rounding = 1e-9  # an epoch's end is a quotient of whole numbers
        before, after = (math.floor(epoch / settings.every_epochs + rounding) for epoch in (since_epoch, info.epoch))
        return after > before
    return False


class EvaluateHook(Hook):
    """Evaluates at the recipe's cadence and at the end, keeps the best model, stops early."""

    name = "evaluate"

    def __init__(
        self,
        *,
        config: RunConfig,
        ranks: Ranks,
        walltime: WallTime,
        evaluate: Callable[[int | None], EvaluationResult | None],
        export_best: Callable[[int], None],
        agree_on_stop: Callable[[Control], None],
    ) -> None:
        """`evaluate(max_batches)` gives a result on rank 0 and None elsewhere; None everywhere if a signal cut it short.

        `export_best(step)` is entered by all ranks, and so is `agree_on_stop`, after an evaluation that was cut short.
        """
        self._config = config
        self._ranks = ranks
        self._walltime = walltime
        self._evaluate = evaluate
        self._export_best = export_best
        self._agree_on_stop = agree_on_stop
        self._loss = LossMeter(ranks)
        self._epoch = 0.0
        self.best: dict[str, float] | None = None
        """`{"step", "value"}` of the best evaluation by the recipe's metric; ties keep the older."""
        self.latest: tuple[int, dict[str, float]] | None = None
        """Step and scores of the last evaluation of this process."""
        self._num_worse = 0
        self._warned: set[str] = set()
        self._is_owed = False

    @property
    def kept_steps(self) -> list[int]:
        """Steps whose weights must not be pruned."""
        return [int(self.best["step"])] if self.best else []

    def on_start(self, progress: Progress, control: Control) -> None:
        if self._config.evaluation.rehearsal and progress.step == 0:
            self._evaluate(REHEARSAL_BATCHES)
            log.info("rehearsal: evaluated %d batches before step 1", REHEARSAL_BATCHES)
        if self._is_owed:  # the run was told to stop at the very step of an evaluation
            self._score(progress.step, self._epoch, control)
        self._stop_early(control)

    def on_step(self, info: StepInfo, control: Control) -> None:
        self._loss.add(info.result.loss_sum, num_tokens=info.target_tokens)
        due = is_due(self._config.evaluation, info, since_epoch=self._epoch)
        self._epoch = info.epoch
        self._is_owed = due or info.is_last
        if control.stop_reason is not None or not self._is_owed:
            return
        if self._ranks.broadcast(self._walltime.fits_evaluation()):  # rank 0's word: clocks differ
            self._score(info.step, info.epoch, control)
        else:
            log.info(
                "the evaluation of step %d would not end in time: it is the first thing after the restart", info.step
            )
            control.request_stop(ALLOCATION_ENDS, preempted=True)

    def state(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "num_worse": self._num_worse,
            "is_owed": self._is_owed,
            "epoch": self._epoch,
            "loss": self._loss.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.best = state["best"]
        self._num_worse = state["num_worse"]
        self._is_owed = state.get("is_owed", False)
        self._epoch = state["epoch"]
        self._loss.load_state(state["loss"])

    def _score(self, step: int, epoch: float, control: Control) -> None:
        started = time.perf_counter()
        train_loss = self._loss.mean()
        result = self._evaluate(None)
        scores = self._ranks.broadcast(result.scores if result is not None else None)
        if scores is None:  # cut short: it is the first thing to do after the restart
            self._is_owed = True
            self._agree_on_stop(control)
            return
        self._is_owed = False
        self._loss.reset()
        seconds = time.perf_counter() - started
        self._walltime.record_duration("evaluation", seconds)
        if result is not None:
            self._record(result, control, step=step, epoch=epoch, train_loss=train_loss, seconds=seconds)
        self.latest = (step, scores)
        if self._judge(scores[self._config.best_metric], step) or self._config.checkpoint.every_steps is None:
            control.request_checkpoint()  # the best is always kept
        self._stop_early(control)

    def _record(
        self,
        result: EvaluationResult,
        control: Control,
        *,
        step: int,
        epoch: float,
        train_loss: float,
        seconds: float,
    ) -> None:
        warnings = list(result.warnings)
        folder = None
        try:
            folder = write_evaluation(result, run_dir=Path(self._config.run_dir), step=step)
        except OSError as error:  # a full disk costs the hypotheses, not the run
            warnings.append(f"the hypotheses of step {step} could not be written: {error.strerror}")
        row = {
            "kind": "eval",
            "step": step,
            "epoch": epoch,
            "train_loss": train_loss,
            "scores": result.scores,
            "groups": result.groups,
            "signatures": result.signatures,
            "generation": result.generation,
            "num_rows": result.num_rows,
            "hypotheses": folder,
            "warnings": warnings,
            "seconds": seconds,
        }
        control.record(row)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in result.scores.items())
        log.info("evaluation at step %d (%.0f s): %s", step, seconds, shown)
        for warning in warnings:
            kind = re.sub(r"[\d.]+", "", warning)  # the same sentence with other numbers is no news
            if kind not in self._warned:
                self._warned.add(kind)
                log.warning(
                    "evaluation at step %d: %s (said once; every evaluation's is in metrics.jsonl)", step, warning
                )

    def _judge(self, value: float, step: int) -> bool:
        """Take up a score; gives whether it is the best so far."""
        stopping = self._config.training.early_stopping
        min_delta = stopping.min_delta if stopping else 0.0
        is_best = self.best is None or self._gain(value) > 0.0
        improved = self.best is None or self._gain(value) > min_delta
        self._num_worse = 0 if improved else self._num_worse + 1
        if is_best:
            self.best = {"step": step, "value": value}
            self._export_best(step)
        return is_best

    def _stop_early(self, control: Control) -> None:
        stopping = self._config.training.early_stopping
        if stopping and self._num_worse >= stopping.patience:
            metric = self._config.best_metric
            control.request_stop(f"early stopping: {metric} has not improved in {self._num_worse} evaluations")

    def _gain(self, value: float) -> float:
        assert self.best is not None
        if math.isnan(self.best["value"]):
            return math.inf if not math.isnan(value) else 0.0
        gain = value - self.best["value"]
        return -gain if self._config.best_metric == "loss" else gain
