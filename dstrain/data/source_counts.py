"""Counts the rows of each data source, and keeps its first ones: they show a reader whether the columns are the right ones."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dstrain.config.data import Source
from dstrain.data.bad_rows import BadRowLog
from dstrain.data.examples import Example
from dstrain.errors import UserError

NUM_FIRST = 3
"""Rows of a source that are kept."""

HEADER_NAMES = frozenset(
    "source target src tgt trg input output text label labels sentence translation utterance parse logical_form question "
    "query prompt completion reference summary document "
    "en de fr es it pt nl ru uk pl cs zh ja ko ar hi tr vi th id sv fi ro hu el he".split()
)
"""What columns are called. A first row of two such names is a header, and no pair of texts."""


TAG = re.compile(r"[<>\[_]\S+|[^:]{1,40}:(?=\s)")
"""A mark at the beginning of a text: `<2en>`, `>>fra<<`, `[EN]`, `translate English to French:`."""


@dataclass(slots=True)
class SourceCounts:
    """Usable rows by the number of their data source."""

    used: Counter[int] = field(default_factory=Counter)
    firsts: dict[int, list[tuple[str, str, str]]] = field(default_factory=dict)
    """The first rows of each, as they are in the data: line, source and target, shortened."""

    def add(self, example: Example) -> None:
        """Count one row."""
        self.used[example.data_source] += 1
        firsts = self.firsts.setdefault(example.data_source, [])
        if len(firsts) < NUM_FIRST:
            line = example.where.rpartition(":")[2]
            firsts.append((line, short(example.raw_source), short(example.raw_target)))

    def join(self, later: "SourceCounts") -> None:
        """Add the counts of rows that come after these."""
        self.used.update(later.used)
        for number, firsts in later.firsts.items():
            self.firsts[number] = [*self.firsts.get(number, []), *firsts][:NUM_FIRST]

    def tags(self) -> dict[int, str]:
        """What the first sources of each data source begin with, if it is a mark, the same for all; else empty."""
        found = {}
        for number, firsts in self.firsts.items():
            marks = {"" if (mark := TAG.match(source)) is None else mark[0] for _, source, _ in firsts}
            found[number] = marks.pop() if len(marks) == 1 else ""
        return found

    def as_json(self) -> list[Any]:
        """The counts for a file, as `from_json` reads them."""
        return [[number, used, self.firsts[number]] for number, used in sorted(self.used.items())]

    @classmethod
    def from_json(cls, values: Sequence[Any]) -> "SourceCounts":
        """The counts that `as_json` has given."""
        firsts = {number: [(line, source, target) for line, source, target in each] for number, _, each in values}
        return cls(Counter({number: used for number, used, _ in values}), firsts)

    def report(self, places: Sequence[str], *, log: BadRowLog, split: str) -> list[dict[str, Any]]:
        """The counts of each data source, for the description of the token set; `log` holds the rows that were lost.

        Raises UserError if one has no usable row: what the recipe names would be missing from the mixture or the scores.
        """
        skipped = [log.count("skip", data_source=number) for number, _ in enumerate(places)]
        lost = [
            f"data.{split}{f'.{number} ({place})' if place else ''} has no usable row: {_describe_lost(skipped[number])}"
            for number, place in enumerate(places)
            if not self.used[number]
        ]
        if lost:
            raise UserError(
                ". ".join(lost) + ". Correct the data or its columns, change data.rules, or leave the source out"
            )
        return [
            {"used": self.used[number], "skipped": skipped[number], "firsts": self.firsts[number]}
            for number, _ in enumerate(places)
        ]


def describe_sources(split: str, report: Mapping[str, Any], *, sources: Sequence[Source]) -> Iterator[str]:
    """A line for each data source: its rows where there are several sources, and its first pair."""
    for number, (source, counts) in enumerate(zip(sources, report["by_source"], strict=True)):
        parts = []
        if len(sources) > 1:
            read = counts["used"] + sum(counts["skipped"].values())
            parts = [describe_used(counts["used"], read=read), *describe_skipped(counts["skipped"])]
            parts += [f"{source.repeat} times per epoch"] if source.repeat > 1 else []
        _, *pair = counts["firsts"][0]
        parts.append("first: {!r} → {!r}".format(*pair))
        yield f"data.{split}.{number} ({source.place}): {'; '.join(parts)}"


def warn_of_columns(split: str, report: Mapping[str, Any], *, sources: Sequence[Source]) -> Iterator[str]:
    """What looks like a header or an index in columns that are given by number."""
    for number, (source, counts) in enumerate(zip(sources, report["by_source"], strict=True)):
        if source.demo is not None or not isinstance(source.source_column, int) or source.target_path is not None:
            continue
        lines, *sides = zip(*counts["firsts"], strict=True)
        way_out = "name the columns, as in source_column: de"
        if lines[0] == "1" and all(side[0].strip().lower() in HEADER_NAMES for side in sides):
            yield (
                f"data.{split}.{number} ({source.place}): the first row, {sides[0][0]!r} and {sides[1][0]!r}, looks like a "
                f"header, and is used as a row because columns are given by number: {way_out}"
            )
        # the header has no name over an index, so that its row was skipped as empty
        elif lines[0] == "2" and ("0", "1", "2") in sides:
            column = "target_column" if sides[1][0] == "0" else "source_column"
            yield (
                f"data.{split}.{number} ({source.place}): {column} holds the numbers 0, 1, 2 under a header without a name: an "
                f"index, as pandas writes it with to_csv(): {way_out}"
            )


def describe_used(used: int, *, read: int) -> str:
    """`8 of 9 rows used`."""
    return f"{used:,} of {read:,} row{'s' * (read != 1)} used"


def describe_skipped(skipped: Mapping[str, int]) -> list[str]:
    """`2 too long skipped`, for each reason."""
    return [f"{number:,} {reason.replace('_', ' ')} skipped" for reason, number in skipped.items() if number]


def _describe_lost(skipped: Mapping[str, int]) -> str:
    read = sum(skipped.values())
    return "; ".join([describe_used(0, read=read), *describe_skipped(skipped)]) if read else "it is empty"


def short(text: str, *, length: int = 60) -> str:
    """The beginning of a text."""
    return text if len(text) <= length else f"{text[:length]}…"
