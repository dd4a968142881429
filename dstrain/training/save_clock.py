"""When a save by time is due. Rank 0's clock decides; how the other ranks learn of it is not known here."""

import math
import time
from collections import deque
from collections.abc import Callable

FIRST_SECONDS = 60.0
"""The first save of an attempt comes this soon, so that a run that cannot save ends early."""
MAX_STANDING = 0.01
"""Largest share of the time that training may stand still for saves by time; beyond it they become rarer."""


class SaveClock:
    """The interval between saves by time, and when the next one is due."""

    def __init__(self, every_minutes: float, *, now: Callable[[], float] = time.monotonic) -> None:
        """Zero minutes switch saves by time off; `now` returns seconds."""
        self.interval_seconds = every_minutes * 60.0
        self._wanted = self.interval_seconds
        self._now = now
        self._due = math.inf
        self._began = now()
        self._was_due = False
        # of the last two saves by time: the first one also allocates its buffers, and a disk may be slow for once
        self._standing: deque[float] = deque(maxlen=2)

    def start(self) -> None:
        """Note that training begins, at the first step of an attempt."""
        if self._wanted:
            self._due = self._now() + min(FIRST_SECONDS, self._wanted)

    def is_due(self, *, within_seconds: float = 0.0) -> bool:
        """Whether it is time to save, or will be after so many seconds in which no save is possible."""
        return self._now() + within_seconds >= self._due

    def begin_save(self) -> None:
        """Note that training stands still for a save, whatever the reason of the save."""
        self._was_due, self._began = self.is_due(), self._now()

    def end_save(self) -> float:
        """Note that training goes on; returns for how many seconds it stood still.

        The interval is doubled until both of the last two saves by time, or at least the quicker one, stood still for at
        most `MAX_STANDING` of it.
        """
        standing = self._now() - self._began
        if self._was_due:
            self._standing.append(standing)
            self._adapt()
        if self._wanted:
            self._due = self._began + self.interval_seconds
        return standing

    def _adapt(self) -> None:
        self.interval_seconds = self._wanted
        if len(self._standing) == self._standing.maxlen:
            while min(self._standing) > MAX_STANDING * self.interval_seconds:
                self.interval_seconds *= 2.0
