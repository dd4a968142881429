"""What a run is doing or how it ended, why, and what to do about it: in words, for a page. Pure."""

from dataclasses import dataclass

from dstrain.run_folder.outcome import summarize
from dstrain.run_folder.record import RunRecord


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a run, as one word or a few."""

    state: str
    why: str = ""
    """The reason, in a line; empty if there is none."""
    advice: str = ""
    """What to do, in a line; empty if nothing."""
    step: int | None = None
    """Steps that are done, where more is known than the rows of the run say."""


def read_standing(record: RunRecord) -> Standing:
    """What the rows of a run say, which is all that is known where no one has looked at its processes."""
    last = next((event for event in reversed(record.events) if event.event != "unsaved"), None)
    why = last.message if last is not None and record.status != "interrupted" else None
    return Standing(record.status, summarize(why or ""))
