"""Stops the run in order when it is told to: by SIGTERM or SIGUSR1, or because its launcher died.

A signal only sets a flag; the ranks agree on it after every step, so that all of them stop at the same one.
"""

import logging
import os
import signal
import threading
from types import FrameType

from dstrain.cluster.environment import EXIT_PREEMPTED
from dstrain.cluster.launcher import watch_launcher
from dstrain.cluster.process_group import Ranks
from dstrain.training.state import Control, Hook, Progress, StepInfo

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
LAUNCHER_DIED = 1 << 16
"""Agreed like a signal number, above all of them."""
ORPHAN_SECONDS = 120.0
"""How long a rank without its launcher may take to stop in order, before it ends at once."""

log = logging.getLogger(__name__)


class PreemptHook(Hook):
    """Turns a signal on any rank into a stop of all ranks at a step boundary."""

    name = "preempt"

    def __init__(self, *, ranks: Ranks) -> None:
        self._ranks = ranks
        self._flag = 0
        # watched from here on, since a launcher may die while data and model are made ready
        watch_launcher(ranks.place.launched_by, on_death=self._on_orphaned)

    def on_start(self, progress: Progress, control: Control) -> None:
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    def on_step(self, info: StepInfo, control: Control) -> None:
        (agreed,) = self._ranks.max([self._flag])
        if agreed:
            reason = "its launcher died" if agreed == LAUNCHER_DIED else f"received {signal.Signals(agreed).name}"
            control.request_stop(reason, preempted=True)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._flag = max(self._flag, number)

    def _on_orphaned(self) -> None:
        log.warning("the launcher died; the run saves and ends")
        self._flag = LAUNCHER_DIED
        # a rank that waits for a peer which is gone never reaches a step boundary
        timer = threading.Timer(ORPHAN_SECONDS, os._exit, args=(EXIT_PREEMPTED,))
        timer.daemon = True
        timer.start()
