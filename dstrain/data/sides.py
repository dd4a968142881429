"""Finds rows whose columns are swapped, or of which one side is in the language of the other, from the tokens alone.

A token has a weight: how much more often it occurs in sources than in targets. The mean weight of a text says which side it
looks like. That needs no model of any language; where both sides are of one language, weights are near 0, and nothing is said.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dstrain.data.tally import Array
from dstrain.run_folder.audit import NUM_LISTED, Found

MIN_TOKENS = 5
"""Tokens with a weight that a text needs to be judged."""

MIN_WEIGHT = 1.0
"""A text looks like the other side if its tokens are on average e to this power times as frequent there."""

MOST_WEIGHT = 4.0
"""No single token counts for more."""

MOST_SOURCES = 32
"""Data sources that are looked at: each needs memory for two counts of every token."""

Side = tuple[Array, Array]
"""The ids of some rows `[tokens]`, and how many each row has `[rows]`."""


class SideProfile:
    """How often each token occurs on either side of a data source, as far as the ids reach that occur."""

    def __init__(self) -> None:
        self._counts = np.zeros((2, 0), dtype=np.int64)
        self._num_rows = 0

    def add(self, source: Side, target: Side) -> None:
        """Count the tokens of some rows."""
        counts = [np.bincount(ids) for ids, _ in (source, target)]
        missing = max(map(len, counts)) - self._counts.shape[1]
        if missing > 0:
            self._counts = np.pad(self._counts, ((0, 0), (0, missing)))
        for number, found in enumerate(counts):
            self._counts[number, : len(found)] += found
        self._num_rows += len(source[1])

    def weights(self) -> npt.NDArray[np.float32]:
        """The weight of each token `[ids]`: above 0 if it is more frequent in sources; 0 if it says nothing of a text."""
        shares = (self._counts + 1) / (self._counts.sum(axis=1, keepdims=True) + 1)
        weights: npt.NDArray[np.float64] = np.clip(np.log(shares[0] / shares[1]), -MOST_WEIGHT, MOST_WEIGHT)
        # special tokens, languages and prefixes stand in every row, whatever its text
        weights[(self._counts > self._num_rows / 2).any(axis=0)] = 0
        return weights.astype(np.float32)


def judge(source: Side, target: Side, *, weights: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.bool_]]:
    """Which rows are suspicious `[rows]`, by check: swapped, the source like targets, the target like sources."""
    source_like, target_like = (_mean_weights(ids, lengths, weights=weights) for ids, lengths in (source, target))
    source_is_wrong, target_is_wrong = source_like < -MIN_WEIGHT, target_like > MIN_WEIGHT
    return {
        "swapped": source_is_wrong & target_is_wrong,
        "source_like_targets": source_is_wrong & (target_like < 0),
        "target_like_sources": target_is_wrong & (source_like > 0),
    }


def _mean_weights(ids: Array, lengths: Array, *, weights: npt.NDArray[np.float32]) -> Array:
    """The mean weight of each row's tokens `[rows]`; 0 where too few have a weight."""
    found = weights[ids]
    rows = np.repeat(np.arange(len(lengths)), lengths)
    sums = np.bincount(rows, weights=found, minlength=len(lengths))
    numbers = np.bincount(rows, weights=found != 0, minlength=len(lengths))
    return np.where(numbers >= MIN_TOKENS, sums / np.maximum(numbers, 1), 0.0)


def collect(
    known: Mapping[str, Found], judged: Mapping[str, npt.NDArray[np.bool_]], *, place: str, lines: Array
) -> dict[str, Found]:
    """The findings so far, and those of rows that come after, whose `file:line` are `place` and `lines` `[rows]`."""
    joined: dict[str, Any] = dict(known)
    for name, mask in judged.items():
        before = joined.get(name, Found())
        new = [f"{place}:{line}" for line in lines[mask][:NUM_LISTED].tolist()]
        joined[name] = Found(before.number + int(mask.sum()), (*before.rows, *new)[:NUM_LISTED])
    return joined
