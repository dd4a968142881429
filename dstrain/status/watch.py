"""Watches a run: its status drawn again and again on a terminal, or a line whenever something has changed."""

import time
from collections.abc import Callable, Iterator

from dstrain.cluster.console import duration
from dstrain.run_folder.outcome import summarize
from dstrain.status.inspect import RunStatus
from dstrain.status.judge import ONGOING
from dstrain.status.text import describe_best, describe_progress, describe_status

MIN_SECONDS = 0.2
"""Least time between two looks, so that a shared file system is not flooded."""


def is_over(status: RunStatus) -> bool:
    """Whether nothing more will happen by itself: the run has ended, and Slurm does not start it again."""
    return status.state not in ONGOING and status.comes_again is None


def watch(
    look: Callable[[], RunStatus], *, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[RunStatus]:
    """The status of a run every so often until it is over; the last one is that at its end."""
    while True:
        status = look()
        yield status
        if is_over(status):
            return
        sleep(max(MIN_SECONDS, seconds))


def describe_watched(status: RunStatus, *, seconds: float) -> str:
    """The status for a terminal, with how to leave it."""
    return f"{describe_status(status)}\n\nevery {seconds:g} s; Ctrl-C ends this, and not the run"


def describe_change(status: RunStatus) -> str:
    """One line about a run, which is another one whenever something has changed but the time."""
    parts = [status.state, f"step {describe_progress(status)}" if status.step is not None else ""]
    if status.eta_seconds is not None and status.step_seconds is not None:
        parts.append(f"{duration(status.eta_seconds)} left")
    if status.last_loss is not None:
        parts.append(f"loss {status.last_loss.value:.4f} at step {status.last_loss.step}")
    if status.best is not None:
        parts.append(f"best {describe_best(status.best)}")
    if status.checkpoint is not None:
        parts.append(f"saved at step {status.checkpoint.step}")
    if status.message:
        parts.append(summarize(status.message))
    return f"{status.run}: {', '.join(filter(None, parts))}"


def changes_of(status: RunStatus) -> tuple[object, ...]:
    """What must differ between two lines: not the steps and times, which always do."""
    scores = None if status.last_scores is None else status.last_scores.step
    saved = None if status.checkpoint is None else status.checkpoint.name
    return (
        status.state,
        status.message,
        status.comes_again,
        status.last_loss,
        scores,
        status.best,
        saved,
        len(status.starts),
    )
