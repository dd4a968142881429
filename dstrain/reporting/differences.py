"""What `dstrain compare` says below its table: by how much runs differ from the first on the same rows, and how sure that is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dstrain.reporting import markdown
from dstrain.reporting.terminal import aligned, printable

HEADER = ("score", "first", "second", "difference", "95 % interval", "p")


@dataclass(frozen=True, slots=True)
class ScoreDifference:
    """One score of two runs."""

    metric: str
    first: float
    second: float
    difference: float
    """`second` less `first`."""
    low: float
    high: float
    """Ends of the 95 % interval of the difference."""
    p: float | None
    """None where both have the same hypotheses: there is nothing to test."""
    test: str
    """How `p` was found, or why there is none."""


@dataclass(frozen=True, slots=True)
class Against:
    """A run beside the first one that the command names."""

    first: str
    second: str
    num_rows: int = 0
    differences: tuple[ScoreDifference, ...] = ()
    refusal: str | None = None
    """Why there are no differences."""
    left_out: str | None = None
    """Which scores were not compared, and why."""


def text_tables(found: Sequence[Against]) -> str:
    """A table for each run that can be compared with the first; empty if there is none."""
    return "\n\n".join(f"{_title(each)}\n{aligned([HEADER, *_cells(each)])}" for each in found if each.differences)


def markdown_tables(found: Sequence[Against]) -> str:
    """The same as Markdown."""
    return "\n\n".join(
        f"{markdown.plain(_title(each))}\n\n{markdown.table(HEADER, _cells(each))}"
        for each in found
        if each.differences
    )


def reasons(found: Sequence[Against]) -> list[str]:
    """Why runs or scores are not compared, a sentence each."""
    return [
        f"{printable(each.second)} is not compared with {printable(each.first)}: {each.refusal}"
        if each.refusal
        else f"{printable(each.second)}: {each.left_out}"
        for each in found
        if each.refusal or each.left_out
    ]


def as_json(found: Sequence[Against]) -> dict[str, dict[str, Any]]:
    """JSON values by the second run."""
    return {each.second: asdict(each) for each in found}


def _title(each: Against) -> str:
    first, second = printable(each.first), printable(each.second)
    return f"second: {second}, first: {first}; the same {each.num_rows:,} rows"


def _cells(each: Against) -> list[list[str]]:
    return [
        [
            printable(found.metric),
            f"{found.first:.4f}",
            f"{found.second:.4f}",
            f"{found.difference:+.4f}",
            f"{found.low:+.4f} to {found.high:+.4f}",
            f"{'–' if found.p is None else f'{found.p:.4f}'} ({found.test})",
        ]
        for found in each.differences
    ]
