"""Leaves evaluations to another job: records which are pending, has their checkpoints saved, reads the scores that arrive."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig
from dstrain.run_folder.rows import DeferredRow
from dstrain.training.hooks.evaluate import EvaluationHook
from dstrain.training.state import Control, Progress, StepInfo

MANY_PENDING = 3
"""More pending evaluations than this are warned about: each keeps a checkpoint on disk."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ScoredElsewhere:
    """What other jobs have scored so far."""

    best: dict[str, Any] | None
    """Step and scores, as in EvaluationHook.best."""
    pending_steps: list[int]
    """Steps of the evaluations without scores."""


class DeferredEvaluationHook(EvaluationHook):
    """Replaces EvaluateHook where another job evaluates; either hook can continue from the other's state."""

    def __init__(
        self,
        *,
        config: RunConfig,
        ranks: Ranks,
        rehearse: Callable[[], object],
        find_scored: Callable[[], ScoredElsewhere],
    ) -> None:
        """`rehearse` evaluates a few batches on all ranks; `find_scored` reads the run folder, on rank 0."""
        super().__init__(config=config, ranks=ranks)
        self._rehearse = rehearse
        self._find_scored = find_scored
        self._warned = False
        self.pending_steps: list[int] = []
        """Steps whose checkpoints wait to be scored."""

    @property
    def kept_steps(self) -> list[int]:
        return [*self.pending_steps, *super().kept_steps]

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self._num_worse, self._is_postponed = 0, False  # this hook neither stops early nor evaluates

    def on_start(self, progress: Progress, control: Control) -> None:
        if self._config.evaluation.rehearsal and progress.step == 0:
            self._rehearse()
        self._read_scored()

    def on_step(self, info: StepInfo, control: Control) -> None:
        if not self._count(info):
            return
        row = DeferredRow(info.step, info.epoch, train_loss=self._loss.mean())
        self._loss.reset()
        control.record(row)
        control.request_checkpoint()
        self._read_scored()
        log.info("the evaluation of step %d is left to another job", info.step)

    def _read_scored(self) -> None:
        found: ScoredElsewhere = self._ranks.broadcast(
            self._find_scored() if self._ranks.rank == 0 else None, ScoredElsewhere
        )
        self.best, self.pending_steps = found.best, found.pending_steps
        if len(self.pending_steps) > MANY_PENDING and not self._warned and self._ranks.rank == 0:
            self._warned = True
            log.warning(
                "%d evaluations are pending, and each keeps a checkpoint: check with squeue that their jobs run, or run "
                "`dstrain evaluate %s --pending` (logged once)",
                len(self.pending_steps),
                self._config.run_dir,
            )
