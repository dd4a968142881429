"""Stops the run in order when it is told to: by SIGTERM, SIGUSR1 or Ctrl-C, because its launcher died or its allocation ends.

A signal only sets a flag; the ranks agree on it after every step, so that all of them stop at the same one. Between the
batches of an evaluation they share nothing but files, so whoever was told leaves one for the others.
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
from dstrain.cluster.walltime import ALLOCATION_ENDS, WallTime
from dstrain.training.state import Control, Hook, Progress, StepInfo

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
OUT_OF_TIME, LAUNCHER_DIED = 1 << 15, 1 << 16
"""Agreed like signal numbers, above all of them."""
REASONS = {OUT_OF_TIME: ALLOCATION_ENDS, LAUNCHER_DIED: "its launcher died"}
ORPHAN_SECONDS = 120.0
"""How long a rank without its launcher may take to stop in order, before it ends at once."""

log = logging.getLogger(__name__)


class PreemptHook(Hook):
    """Turns a signal on any rank into a stop of all ranks at a step boundary."""

    name = "preempt"

    def __init__(self, *, ranks: Ranks, walltime: WallTime, num_slow_steps: int = 0) -> None:
        """`walltime` may differ between ranks: the first whose time is over stops all.

        So many steps at first take longer than others ever will, and say nothing of these.
        """
        self._ranks = ranks
        self._walltime = walltime
        self._num_slow_steps = num_slow_steps
        self._flag = 0
        self._told: float | None = None
        # watched from here on, since a launcher may die while data and model are made ready
        watch_launcher(ranks.process.launched_by, on_death=self._on_orphaned)

    def on_start(self, progress: Progress, control: Control) -> None:
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGINT, self._on_interrupt)

    def on_step(self, info: StepInfo, control: Control) -> None:
        if self._num_slow_steps:
            self._num_slow_steps -= 1
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
        """Ask for a stop on all ranks if any was told to; a collective call."""
        (agreed,) = self._ranks.max([self._flag])
        if agreed:
            reason = REASONS.get(agreed) or f"received {signal.Signals(agreed).name}"
            control.request_stop(reason, preempted=True)

    def should_stop(self, *, is_told: Callable[[], bool], tell: Callable[[], None]) -> bool:
        """Whether this rank or another was told to stop, between two step boundaries; no collective call.

        `tell` leaves word for the other ranks, `is_told` looks for theirs.
        """
        if self._walltime.must_save():
            self._raise_flag(OUT_OF_TIME)
        if self._flag:
            tell()
            return True
        return is_told()

    def seconds_since_told(self) -> float:
        """Time since this rank was told to stop, 0 if it was not."""
        return 0.0 if self._told is None else time.monotonic() - self._told

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._raise_flag(number)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._flag:
            os._exit(EXIT_INTERRUPTED)
        log.warning("interrupted: the run saves and ends after this step; once more ends it at once")
        self._raise_flag(number)

    def _on_orphaned(self) -> None:
        log.warning("the launcher died; the run saves and ends")
        self._raise_flag(LAUNCHER_DIED)
        # a rank that waits for a peer which is gone never reaches a step boundary
        timer = threading.Timer(ORPHAN_SECONDS, os._exit, args=(EXIT_PREEMPTED,))
        timer.daemon = True
        timer.start()

    def _raise_flag(self, number: int) -> None:
        self._flag = max(self._flag, number)
        self._told = time.monotonic() if self._told is None else self._told
