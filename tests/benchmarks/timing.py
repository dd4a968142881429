"""Seconds of an action."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

Clock = Callable[[], float]


def timed(action: Callable[[], Any], *, times: int = 5, clock: Clock = time.perf_counter) -> float:
    """The median of the seconds that an action takes."""
    taken = []
    for _ in range(times):
        started = clock()
        action()
        taken.append(clock() - started)
    return median(taken)
