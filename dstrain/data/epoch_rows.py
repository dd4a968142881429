"""The rows of one epoch in the order of training: all, or those that are left after a part was trained otherwise. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from dstrain.data.arrays import Rows, UInt64Array
from dstrain.data.permutation import permute


def _no_rows() -> Rows:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class EpochRows:
    """`first`, then the random order of all `num_rows` rows from `start` on. Its length is the number of these rows."""

    num_rows: int
    """Rows of an epoch."""
    keys: UInt64Array
    """What the random order is computed from."""
    first: Rows = field(default_factory=_no_rows)
    """Row numbers `[n]` that come before the others; no more than a window or two."""
    start: int = 0
    at: Callable[[Rows], Rows] | None = None
    """The row numbers `[n]` at places `[n]` below `num_rows`, where sources are mixed in other shares than their rows."""

    def __len__(self) -> int:
        return len(self.first) + self.num_rows - self.start

    def between(self, start: int, stop: int) -> Rows:
        """The row numbers `[stop - start]` from one place to another."""
        begin, end = (self.start + max(0, place - len(self.first)) for place in (start, stop))
        drawn = permute(np.arange(begin, end, dtype=np.int64), num_rows=self.num_rows, keys=self.keys)
        drawn = drawn if self.at is None else self.at(drawn)
        return np.concatenate([self.first[start:stop], drawn]) if start < len(self.first) else drawn

    def after(self, place: int, *, first: Rows | None = None) -> "EpochRows":
        """What follows `place`, with the rows `first` before it."""
        left = self.first[place:]
        return replace(
            self,
            first=left if first is None else np.concatenate([first, left]),
            start=self.start + max(0, place - len(self.first)),
        )
