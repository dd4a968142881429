"""Saves the run's state when it is due. Does not know where it is written or which checkpoints are kept."""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from dstrain.checkpoint.saver import SaveOutcome
from dstrain.cluster.process_group import Ranks
from dstrain.cluster.walltime import WallTime
from dstrain.config.machine import Checkpoint
from dstrain.errors import UserError
from dstrain.training.save_clock import SaveClock
from dstrain.training.state import Control, Hook, Progress, StepInfo, new_event

log = logging.getLogger(__name__)


class CannotSave(UserError):
    """The first save of an attempt failed, so that all its work would be lost."""

    is_said_by_rank_0 = True


class Saves(Protocol):
    """The part of a Saver that the hook uses."""

    @property
    def is_writing(self) -> bool:
        """Whether a save is in progress; ranks may differ."""

    def poll(self) -> Sequence[SaveOutcome]:
        """The outcome of a save that has ended since the last call, if any."""

    def finish(self) -> Sequence[SaveOutcome]:
        """Wait for the save in progress; returns its outcome, if any."""

    def tidy(self) -> None:
        """Remove leftovers of failed saves, when no save is in progress."""


class CheckpointHook(Hook):
    """Saves at the recipe's cadence, on request and at the end; records how saves ended.

    If the first save of an attempt fails, which is due within a minute, the attempt ends. Later failures are warnings, since an
    older checkpoint exists.
    """

    name = "checkpoint"

    def __init__(
        self,
        *,
        settings: Checkpoint,
        ranks: Ranks,
        walltime: WallTime,
        save_clock: SaveClock,
        save: Callable[[Progress], Sequence[SaveOutcome]],
        saves: Saves,
    ) -> None:
        """`save` begins a save and returns the outcome of the previous one."""
        self._settings = settings
        self._ranks = ranks
        self._walltime = walltime
        self._save_clock = save_clock
        self._save = save
        self._saves = saves
        self._has_begun = False
        self._has_saved = False

    def on_step(self, info: StepInfo, control: Control) -> None:
        """Raises CannotSave on all ranks, at the same step, if the first save has failed."""
        self._report(self._poll(), control)
        # without saves by time the first one may come after hours of work, which a failure must not cost
        if control.unsaved is not None and not self._has_saved and self._settings.every_minutes > 0:
            raise CannotSave(
                f"{control.unsaved}. No checkpoint can be saved, so the run ends before it loses more work: make room or make "
                "the folder writable, or give another output_dir, and start it again"
            )
        every = self._settings.every_steps
        is_due = every is not None and info.step % every == 0
        if is_due or control.checkpoint_requested or control.stop_reason is not None or info.is_last:
            control.checkpoint_requested = False
            self._save_now(info.progress, control)

    def on_stop(self, progress: Progress, control: Control) -> None:
        self._report(self._saves.finish(), control)
        self._saves.tidy()

    def _poll(self) -> Sequence[SaveOutcome]:
        if self._has_saved or not self._has_begun:
            return self._saves.poll()
        # until the first save has ended, at the same step on all ranks: a failure ends all of them
        (is_writing,) = self._ranks.max([int(self._saves.is_writing)])
        return [] if is_writing else self._saves.finish()

    def _save_now(self, progress: Progress, control: Control) -> None:
        before = self._save_clock.interval_seconds
        self._save_clock.begin_save()
        self._report(self._save(progress), control)
        self._has_begun = True
        self._walltime.begin_save()
        if not self._settings.background:
            self._report(self._saves.finish(), control)
        standing, interval = self._save_clock.end_save(), self._save_clock.interval_seconds
        if interval > before and self._ranks.rank == 0:
            log.warning(
                "training stood still for %.1f s for a save, more than 1 %% of the %g minutes between saves by time: from here "
                "on they are %g minutes apart",
                standing,
                before / 60,
                interval / 60,
            )

    def _report(self, outcomes: Sequence[SaveOutcome], control: Control) -> None:
        for outcome in outcomes:
            self._walltime.end_save()
            if outcome.directory is not None:
                self._has_saved, control.unsaved = True, None
                log.info("saved %s", outcome.directory)
            else:
                control.unsaved = f"step {outcome.step} could not be saved: {outcome.problem}"
                log.warning("%s; training continues, older checkpoints are kept", control.unsaved)
                control.record(new_event("unsaved", outcome.step, message=outcome.problem))
