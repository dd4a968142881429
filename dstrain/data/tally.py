"""Counts rows by a number, and remembers the first lines of each: a few kilobytes for any number of rows."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

NUM_SHOWN = 5
"""Lines that are remembered for each number, where nothing else is said."""

Array = npt.NDArray[Any]


@dataclass(slots=True)
class Tally:
    """How many rows have which number, and the lines of the first of each."""

    counts: dict[int, int] = field(default_factory=dict)
    lines: dict[int, list[int]] = field(default_factory=dict)
    most: int = NUM_SHOWN
    """Lines that are remembered for each number."""

    def add(self, numbers: Array, lines: Array) -> None:
        """Count rows `[rows]`, of which each has a number and a line."""
        if len(numbers) == 0:
            return
        order = np.argsort(numbers, kind="stable")
        ordered, lines = numbers[order], lines[order]
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(ordered)], strict=True):
            self._note(int(ordered[start]), end - start, lines[start : min(end, start + self.most)].tolist())

    def _note(self, number: int, count: int, lines: list[int]) -> None:
        self.counts[number] = self.counts.get(number, 0) + count
        known = self.lines.setdefault(number, [])
        if len(known) < self.most:
            known += lines[: self.most - len(known)]

    def join(self, later: "Tally") -> None:
        """Add the rows that come after these."""
        for number, count in later.counts.items():
            self._note(number, count, later.lines[number])

    def among(self, numbers: Iterable[int]) -> tuple[int, list[int]]:
        """How many rows have one of these numbers, and the lines of the first of each."""
        wanted = [number for number in numbers if number in self.counts]
        lines = sorted(line for number in wanted for line in self.lines[number])
        return sum(self.counts[number] for number in wanted), lines[: self.most]

    def percentiles(self, shares: Iterable[float]) -> list[int]:
        """The numbers below or at which these shares of the rows lie, 0 to 1."""
        numbers = sorted(self.counts)
        upto = np.cumsum([self.counts[number] for number in numbers])
        places = np.searchsorted(upto, [share * upto[-1] for share in shares])
        return [numbers[min(int(place), len(numbers) - 1)] for place in places]

    def as_json(self) -> list[Any]:
        """The counts for a file, as `from_json` reads them."""
        return [[number, count, self.lines[number]] for number, count in sorted(self.counts.items())]

    @classmethod
    def from_json(cls, values: Iterable[Any], *, most: int = NUM_SHOWN) -> "Tally":
        """The counts that `as_json` has given."""
        rows = list(values)
        return cls({number: count for number, count, _ in rows}, {number: lines for number, _, lines in rows}, most)
