"""How many steps an epoch has, and which window holds a step: counted window by window, only as far as needed.

An epoch of three windows with 4, 3 and 5 steps:

    window        0             1           2
    step          0  1  2  3  | 4  5  6  |  7  8  9  10  11
    first step    0             4           7                  12 (steps of the epoch)

    num_steps()     12
    locate(5)       (1, 4): in window 1, which begins with step 4
    locate(12)      (3, 12): past the last window
    progress(5)     (1, 1/3): before step 5, one window and a third of the next are done

The number of steps in a window is known only after the window was laid out, which reads the length of each of its rows.
So a window is counted when a query first needs it. Knows nothing of rows: `count_window` does the counting.
"""

import math
import threading
from collections.abc import Callable

import numpy as np

from dstrain.data.arrays import Rows


class EpochSteps:
    """The first step of every window of one epoch. May be queried from several threads."""

    def __init__(self, count_window: Callable[[int], int], *, num_windows: int) -> None:
        self._count_window = count_window
        self._num_windows = num_windows
        self._num_counted = 0
        self._first = np.zeros(num_windows + 1, dtype=np.int64)
        """First step of each window, valid up to and including index `_num_counted`; the last is the number of steps."""
        # held while counting: a second thread must wait for the result, not read all lengths of the data once more
        self._lock = threading.Lock()

    def set_counts(self, counts: Rows) -> None:
        """Set the number of steps of every window `[windows]`, counted elsewhere."""
        with self._lock:
            self._first[1:] = np.cumsum(counts)
            self._num_counted = self._num_windows

    def num_steps(self) -> int:
        """Steps of the epoch; counts every window."""
        with self._lock:
            self._count_until(math.inf)
            return int(self._first[-1])

    def locate(self, step: int) -> tuple[int, int]:
        """The window that holds a step, and the first step of that window.

        If the epoch has no such step, the number of windows and the number of steps.
        """
        with self._lock:
            self._count_until(step)
            return self._locate_counted(step)

    def progress(self, step: int) -> tuple[int, float]:
        """The windows completed before a step, and the completed fraction of the next one."""
        with self._lock:
            # one step less: if `step` begins a window, the fraction is 0 and that window need not be counted
            self._count_until(step - 1)
            window, first = self._locate_counted(step)
            if step == first:
                return window, 0.0
            return window, (step - first) / int(self._first[window + 1] - first)

    def _count_until(self, step: float) -> None:
        """Count windows until one holds the step, or all are counted."""
        while self._num_counted < self._num_windows and self._first[self._num_counted] <= step:
            window = self._num_counted
            self._first[window + 1] = self._first[window] + self._count_window(window)
            self._num_counted += 1

    def _locate_counted(self, step: int) -> tuple[int, int]:
        window = int(np.searchsorted(self._first[: self._num_counted + 1], step, side="right")) - 1
        return window, int(self._first[window])
