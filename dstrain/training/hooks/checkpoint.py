"""When to save the run's state. Does not know where it is written or which checkpoints are kept."""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from dstrain.checkpoint.saver import SaveOutcome
from dstrain.cluster.walltime import WallTime
from dstrain.config.machine import Checkpoint
from dstrain.training.state import Control, Hook, Progress, StepInfo, new_event

log = logging.getLogger(__name__)


class Saves(Protocol):
    """The part of a Saver that the hook uses."""

    def poll(self) -> Sequence[SaveOutcome]:
        """The outcome of a save that has ended since the last call, if any."""

    def finish(self) -> Sequence[SaveOutcome]:
        """Wait for the save in progress; returns its outcome, if any."""

    def tidy(self) -> None:
        """Remove leftovers of failed saves, when no save is in progress."""


class CheckpointHook(Hook):
    """Saves at the recipe's cadence, on request and at the end; records how saves ended."""

    name = "checkpoint"

    def __init__(
        self,
        *,
        settings: Checkpoint,
        walltime: WallTime,
        save: Callable[[Progress], Sequence[SaveOutcome]],
        saves: Saves,
    ) -> None:
        """`save` begins a save and returns the outcome of the previous one."""
        self._settings = settings
        self._walltime = walltime
        self._save = save
        self._saves = saves

    def on_step(self, info: StepInfo, control: Control) -> None:
        self._report(self._saves.poll(), control)
        every = self._settings.every_steps
        is_due = every is not None and info.step % every == 0
        if is_due or control.checkpoint_requested or control.stop_reason is not None or info.is_last:
            control.checkpoint_requested = False
            self._report(self._save(info.progress), control)
            self._walltime.begin_save()
            if not self._settings.background:
                self._report(self._saves.finish(), control)

    def on_stop(self, progress: Progress, control: Control) -> None:
        self._report(self._saves.finish(), control)
        self._saves.tidy()

    def _report(self, outcomes: Sequence[SaveOutcome], control: Control) -> None:
        for outcome in outcomes:
            self._walltime.end_save()
            if outcome.directory is not None:
                control.unsaved = None
                log.info("saved %s", outcome.directory)
            else:
                control.unsaved = f"step {outcome.step} could not be saved: {outcome.problem}"
                log.warning("%s; training continues, older checkpoints are kept", control.unsaved)
                control.record(new_event("unsaved", outcome.step, message=outcome.problem))
