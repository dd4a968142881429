"""Stops the run after a save: on SIGTERM, SIGUSR1, SIGHUP or Ctrl-C, when its launcher dies, or before its allocation ends.

A signal only sets a flag. The ranks agree on it after every step, so that all of them stop at the same step, and with it on
whether a save by time is due. During an evaluation ranks do not communicate, so a rank that is signalled leaves a file for the
others.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from dstrain.cluster.exit_codes import EXIT_INTERRUPTED, EXIT_PREEMPTED
from dstrain.cluster.launcher import watch_launcher
from dstrain.cluster.process_group import Ranks
from dstrain.cluster.signals import catch_saving_signals
from dstrain.cluster.walltime import ALLOCATION_ENDS, WallTime
from dstrain.training.save_clock import SaveClock
from dstrain.training.state import Control, Hook, Progress, StepInfo

OUT_OF_TIME, LAUNCHER_DIED, INTERRUPTED = 1 << 15, 1 << 16, 1 << 17
"""Reasons that the ranks agree on as if they were signal numbers; larger than any signal number. Of several the largest counts:
Ctrl-C most, because a launcher that receives it too signals its ranks or leaves them."""
REASONS = {
    OUT_OF_TIME: ALLOCATION_ENDS,
    LAUNCHER_DIED: "its launcher died",
    INTERRUPTED: "received SIGINT (Ctrl-C)",
}
ORPHAN_SECONDS = 120.0
"""How long a rank may take to save and stop after its launcher died, before it exits without saving."""

log = logging.getLogger(__name__)


class PreemptHook(Hook):
    """Turns a signal on any rank, and rank 0's clock, into a stop or a save of all ranks at a step boundary."""

    name = "preempt"

    def __init__(self, *, ranks: Ranks, walltime: WallTime, save_clock: SaveClock) -> None:
        """`walltime` may differ between ranks: the first whose time is over stops all of them."""
        self._ranks = ranks
        self._walltime = walltime
        self.save_clock = save_clock
        """That of rank 0 decides for all ranks."""
        self._num_ignored_steps = 0
        self._flag = 0
        self._signalled: float | None = None
        # from here on, since the launcher may die while data and model are prepared
        watch_launcher(ranks.process.launched_by, on_death=self._on_orphaned)

    def ignore_durations(self, *, num_steps: int) -> None:
        """Do not estimate step times from the next `num_steps` steps, which are slower than the later ones."""
        self._num_ignored_steps = num_steps

    def on_start(self, progress: Progress, control: Control) -> None:
        catch_saving_signals(self._on_signal)
        signal.signal(signal.SIGINT, self._on_interrupt)
        self.save_clock.start()

    def on_step(self, info: StepInfo, control: Control) -> None:
        if self._num_ignored_steps:
            self._num_ignored_steps -= 1
        else:
            self._walltime.record_duration("step", info.seconds)
        if self._walltime.is_over():
            self._raise_flag(OUT_OF_TIME)
        self.agree(control)

    def state(self) -> dict[str, Any]:
        return {"durations": self._walltime.durations}

    def load_state(self, state: dict[str, Any]) -> None:
        self._walltime.load(state["durations"])

    def agree(self, control: Control) -> None:
        """Request a stop on all ranks if any rank was signalled, and a save if one is due; a collective call."""
        is_due = self._ranks.rank == 0 and self.save_clock.is_due() and self._walltime.fits_save()
        flag, must_save = self._ranks.max([self._flag, int(is_due)])
        if flag:
            reason = REASONS.get(flag) or f"received {signal.Signals(flag).name}"
            control.request_stop(reason, preempted=True)
        if must_save:
            control.request_checkpoint()

    def should_stop(self, *, is_stop_requested: Callable[[], bool], request_stop: Callable[[], None]) -> bool:
        """Whether this rank or another was signalled, between two step boundaries; not a collective call.

        `request_stop` leaves a file for the other ranks, `is_stop_requested` looks for a file of theirs.
        """
        if self._walltime.must_save():
            self._raise_flag(OUT_OF_TIME)
        if self._flag:
            request_stop()
            return True
        return is_stop_requested()

    def seconds_since_signal(self) -> float:
        """Time since this rank was signalled, 0 if it was not."""
        return 0.0 if self._signalled is None else time.monotonic() - self._signalled

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._raise_flag(number)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._flag:
            os._exit(EXIT_INTERRUPTED)
        log.warning(
            "interrupted: the run saves and ends after this step; press Ctrl-C again to end it at once, without a save"
        )
        self._raise_flag(INTERRUPTED)

    def _on_orphaned(self) -> None:
        log.warning("the launcher died; the run saves and ends")
        self._raise_flag(LAUNCHER_DIED)
        # a rank that waits for a dead peer never reaches a step boundary
        timer = threading.Timer(ORPHAN_SECONDS, os._exit, args=(EXIT_PREEMPTED,))
        timer.daemon = True
        timer.start()

    def _raise_flag(self, number: int) -> None:
        self._flag = max(self._flag, number)
        self._signalled = time.monotonic() if self._signalled is None else self._signalled
