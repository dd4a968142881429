"""How often the rows of each training source come in an epoch, where the recipe mixes them by weight or temperature.

An epoch has as many rows as the data, but the sources have other shares of it. If it uses only part of a source, the next epoch
resumes where it stopped, so that every row is used once before any row is used again. A source with a larger share is used
more than once. Which row comes where follows from fingerprint, seed, epoch and place alone. Pure numpy.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dstrain.config.data import Data
from dstrain.data.arrays import Rows
from dstrain.data.permutation import permutation_keys, permute


@dataclass(frozen=True, slots=True)
class Mixture:
    """The rows of each source in the token set, whose rows follow the sources, and how many of an epoch are drawn from each."""

    sizes: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def num_rows(self) -> int:
        """Rows of an epoch."""
        return sum(self.counts)

    @property
    def passes(self) -> tuple[float, ...]:
        """How often an epoch passes over the rows of each source."""
        return tuple(count / size for count, size in zip(self.counts, self.sizes, strict=True))

    def fingerprint(self, data: str) -> str:
        """A hash of the training rows of an epoch; `data` is that of the token set."""
        return hashlib.sha256(json.dumps([data, self.sizes, self.counts]).encode()).hexdigest()

    def rows(self, places: Rows, *, fingerprint: str, seed: int, epoch: int) -> Rows:
        """The row numbers `[n]` at places `[n]` of an epoch: those of the first source come first, and so on."""
        ends = np.cumsum(self.counts)
        owners = np.searchsorted(ends, places, side="right")
        found = np.empty(len(places), dtype=np.int64)
        first = 0
        for number, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True)):
            mine = np.flatnonzero(owners == number)
            # all places of the source over all epochs, in passes over its rows
            passes, inside = np.divmod(epoch * count + places[mine] - (ends[number] - count), size)
            for each in np.unique(passes).tolist():
                keys = permutation_keys(f"{fingerprint}/{number}", seed=seed, epoch=each)
                part = passes == each
                found[mine[part]] = first + permute(inside[part], num_rows=size, keys=keys)
            first += size
        return found


def find_mixture(data: Data, *, report: Mapping[str, Any]) -> Mixture | None:
    """How the recipe mixes the sources of a training set with this report; None where every row comes once, or `repeat` times."""
    if not data.is_mixed:
        return None
    sizes = [counts["used"] for counts in report["by_source"]]
    if data.temperature is None:
        shares = [source.weight or 0.0 for source in data.train]
    else:
        shares = [(size / sum(sizes)) ** (1.0 / data.temperature) for size in sizes]
    return Mixture(tuple(sizes), _divide(sum(sizes), shares=shares))


def _divide(total: int, *, shares: Sequence[float]) -> tuple[int, ...]:
    """`total` in whole numbers by these shares, each at least 1; the largest remainders are rounded up (Hamilton's method)."""
    exact = [max(1.0, total * share / sum(shares)) for share in shares]
    counts = [int(each) for each in exact]
    by_remainder = sorted(range(len(exact)), key=lambda number: (counts[number] - exact[number], number))
    for number in by_remainder[: max(0, total - sum(counts))]:
        counts[number] += 1
    return tuple(counts)
