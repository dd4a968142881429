"""How far long work has come, on standard error: a line that is drawn again on a terminal, else a plain line now and then.

Nothing is said where the log of dstrain is silent, as on all ranks but the first.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dstrain.cluster.console import can_redraw, duration, redraw

DRAW_SECONDS, SAY_SECONDS = 0.2, 30.0
"""Least time between two drawings on a terminal, and between two lines elsewhere."""
BAR_WIDTH = 16
CENTURY = 100 * 365 * 86400.0
"""Seconds from which on no end is foretold: a run "until it no longer improves" may have any number of steps, a time may not."""

Total = int | None | Callable[[], int | None]
"""How much work there is; None if that is not known. A function is asked when the number is first drawn."""

log = logging.getLogger(__name__)


class Progress:
    """Work that is being done, counted in a unit such as rows, or not counted at all."""

    def __init__(
        self,
        what: str,
        *,
        unit: str | None = None,
        total: Total = None,
        done: int = 0,
        is_terminal: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`done` was done before; `is_terminal` is found out by default."""
        self._what, self._unit, self._total, self._clock = what, unit, total, clock
        self._is_silent = not log.isEnabledFor(logging.INFO)
        self._is_terminal = not self._is_silent and (can_redraw() if is_terminal is None else is_terminal)
        self._before = self._done = done
        self._started = self._shown = clock()
        self.note = ""
        """More about the work, shown on a terminal in the place of the rate."""

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._clock() - self._started

    def advance(self, number: int) -> None:
        """Count work that was done since the last call; 0 is none."""
        self.show(self._done + number)

    def show(self, done: int) -> None:
        """Note that so much is done."""
        self._done = done
        self.refresh()

    def refresh(self) -> None:
        """Show what is done, unless something was shown just before."""
        if not self._is_silent and self._clock() - self._shown >= (DRAW_SECONDS if self._is_terminal else SAY_SECONDS):
            self.draw()

    def draw(self) -> None:
        """Show on a terminal, or log, what is done."""
        if self._is_silent:
            return
        self._shown = self._clock()
        if callable(self._total) and self._done:
            self._total = self._total()
        total = None if callable(self._total) else self._total
        text = describe_progress(
            self._done,
            since=self._before,
            total=total,
            unit=self._unit,
            seconds=self.seconds,
            shows_rate=not self.note,
        )
        if self._is_terminal:
            redraw("  ".join(filter(None, (self._what, draw_bar(self._done, total=total) + text, self.note))))
        else:
            log.info("%s: %s", self._what, text if self._done else f"{text} so far")

    def close(self) -> None:
        """Remove the line from the terminal."""
        if self._is_terminal:
            redraw("")

    def describe_end(self) -> str | None:
        """What was done and how long it took; None if there was nothing to count."""
        took = f"{self.seconds:.1f} s" if self.seconds < 60 else duration(self.seconds)
        if self._unit is None:
            return f"{self._what}: {took}"
        return f"{self._what}: {self._done:,} {self._unit} in {took}" if self._done else None


@contextmanager
def phase(
    what: str, *, unit: str | None = None, total: Total = None, clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """A phase of the set-up, which is logged with its duration when it ends, unless it counts and there was nothing to count.

    Meanwhile it is shown from a thread, because what is done in it need not count anything. Phases do not overlap.
    """
    progress = Progress(what, unit=unit, total=total, clock=clock)
    if not log.isEnabledFor(logging.INFO):
        yield progress
        return
    ended = threading.Event()
    thread = threading.Thread(target=_show_until, args=(ended, progress), daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        ended.set()
        thread.join()
        progress.close()
    if (text := progress.describe_end()) is not None:
        log.info("%s", text)


def _show_until(ended: threading.Event, progress: Progress) -> None:
    while not ended.wait(DRAW_SECONDS):
        progress.refresh()


def describe_progress(
    done: int, *, since: int, total: int | None, unit: str | None, seconds: float, shows_rate: bool = True
) -> str:
    """What is done, how fast since the number `since`, and the time that is left where the total is known.

    Without a unit it is the time that has passed.
    """
    if unit is None or (not done and total is None):
        return duration(seconds)
    rate = (done - since) / seconds if seconds > 0 else 0.0
    text = f"{done:,} {unit}" if total is None else f"{min(done, total):,} of {total:,} {unit}"
    text += f", {rate:,.1f} {unit}/s" if rate > 0 and shows_rate else ""
    left = (total - done) / rate if total is not None and rate > 0 else CENTURY
    return f"{text}, about {duration(left)} left" if 0 < left < CENTURY else text


def draw_bar(done: int, *, total: int | None) -> str:
    """A bar as wide as the share that is done, and a space; nothing where the total is not known."""
    if not total:
        return ""
    filled = min(BAR_WIDTH, done * BAR_WIDTH // total)
    return f"[{'#' * filled}{' ' * (BAR_WIDTH - filled)}] "
