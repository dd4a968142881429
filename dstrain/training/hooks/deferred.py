"""Leaves evaluations to another job: writes down which are due, has their checkpoints saved, takes up scores that have come."""

import logging
from collections.abc import Callable
from typing import Any

from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig
from dstrain.training.hooks.evaluate import EvaluateHook, is_due
from dstrain.training.meters import LossMeter
from dstrain.training.state import Control, Hook, Progress, StepInfo

MANY_PENDING = 3
"""Each keeps a checkpoint."""

Found = tuple[dict[str, float] | None, list[int]]
"""`{"step", "value"}` of the best evaluation so far, and the steps of those without scores."""

log = logging.getLogger(__name__)


class DeferredEvaluationHook(Hook):
    """Stands in for EvaluateHook where evaluations are another job's, and leaves a state that it can go on from."""

    name = EvaluateHook.name

    def __init__(
        self, *, config: RunConfig, ranks: Ranks, rehearse: Callable[[], object], look_up: Callable[[], Found]
    ) -> None:
        """`rehearse` evaluates a little on all ranks; `look_up` reads the run folder, on rank 0."""
        self._config = config
        self._ranks = ranks
        self._rehearse = rehearse
        self._look_up = look_up
        self._loss = LossMeter(ranks)
        self._epoch = 0.0
        self._warned = False
        self.best: dict[str, float] | None = None
        """As EvaluateHook's, of the scores that have come so far."""
        self.pending_steps: list[int] = []
        """Steps whose checkpoints wait to be scored."""
        self.latest: tuple[int, dict[str, float]] | None = None
        """None: a checkpoint is saved before it is scored."""

    @property
    def kept_steps(self) -> list[int]:
        """Steps whose weights must not be pruned."""
        return [*self.pending_steps, *([int(self.best["step"])] if self.best else [])]

    def on_start(self, progress: Progress, control: Control) -> None:
        if self._config.evaluation.rehearsal and progress.step == 0:
            self._rehearse()
        self._take_up()

    def on_step(self, info: StepInfo, control: Control) -> None:
        self._loss.add(info.result.loss_sum, num_tokens=info.target_tokens)
        due = is_due(self._config.evaluation, info, since_epoch=self._epoch) or info.is_last
        self._epoch = info.epoch
        if not due:
            return
        train_loss = self._loss.mean()
        self._loss.reset()
        control.record({"kind": "due", "step": info.step, "epoch": info.epoch, "train_loss": train_loss})
        control.request_checkpoint()
        self._take_up()
        log.info("evaluation at step %d is left to another job", info.step)

    def state(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "num_worse": 0,
            "is_owed": False,
            "epoch": self._epoch,
            "loss": self._loss.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.best = state["best"]
        self._epoch = state["epoch"]
        self._loss.load_state(state["loss"])

    def _take_up(self) -> None:
        found = self._look_up() if self._ranks.rank == 0 else None
        self.best, self.pending_steps = self._ranks.broadcast(found)
        if len(self.pending_steps) > MANY_PENDING and not self._warned and self._ranks.rank == 0:
            self._warned = True
            log.warning(
                "%d evaluations wait for another job, and each keeps a checkpoint: see squeue, or run "
                "`dstrain evaluate %s --pending` (said once)",
                len(self.pending_steps),
                self._config.run_dir,
            )
