"""How far a prediction has come, on standard error: a line that is drawn again on a terminal, else a line now and then."""

import logging
import time
from collections.abc import Callable

from dstrain.cluster.console import redraw
from dstrain.reporting.terminal import duration

DRAW_SECONDS, SAY_SECONDS = 0.2, 30.0
BAR_WIDTH = 24

log = logging.getLogger(__name__)


class PredictProgress:
    """Rows that are done. `total` is None where it is not known, as of standard input."""

    def __init__(self, total: int | None, *, is_terminal: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._is_terminal, self._clock = total, is_terminal, clock
        self._started = self._shown = clock()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._clock() - self._started

    def show(self, done: int) -> None:
        """Show that about so many rows are done, unless something was shown just before."""
        if self._clock() - self._shown < (DRAW_SECONDS if self._is_terminal else SAY_SECONDS):
            return
        self._shown = self._clock()
        text = describe_progress(done, total=self._total, seconds=self.seconds)
        if self._is_terminal:
            redraw(f"{draw_bar(done, total=self._total)}{text}")
        else:
            log.info("%s", text)

    def close(self) -> None:
        """Remove the line from the terminal."""
        if self._is_terminal:
            redraw("")


def describe_progress(done: int, *, total: int | None, seconds: float) -> str:
    """Rows done, rows a second, and the time that is left where the total is known."""
    rate = done / seconds if seconds > 0 else 0.0
    text = f"{done:,} rows" if total is None else f"{min(done, total):,} of {total:,} rows"
    text += f", {rate:,.1f} rows/s"
    if total is not None and rate > 0:
        text += f", about {duration(max(0, total - done) / rate)} left"
    return text


def draw_bar(done: int, *, total: int | None) -> str:
    """A bar as wide as the share that is done, and a space; nothing where the total is not known."""
    if not total:
        return ""
    filled = min(BAR_WIDTH, done * BAR_WIDTH // total)
    return f"[{'#' * filled}{' ' * (BAR_WIDTH - filled)}] "
