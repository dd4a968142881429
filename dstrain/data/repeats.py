"""Finds rows that repeat an earlier one, and sources with several targets, among any number of rows by their identities.

Memory is bounded: the rows are read once for every PART_ROWS of them, and each time those are sorted whose source belongs to one
part of all hashes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dstrain.data.identity import IDENTITY, Identities
from dstrain.run_folder.audit import NUM_LISTED

PART_ROWS = 4_000_000
"""Rows that are sorted at a time, in about half a gigabyte."""

Rows = npt.NDArray[np.int64]
Pairs = list[tuple[int, int]]
"""Numbers of rows that come later, each with that of the earlier row."""


@dataclass(slots=True)
class Repeats:
    """Which rows are the same as others, of all rows that were read."""

    equal: Rows
    """Numbers of the rows whose pair is that of an earlier row, letter for letter; in order."""
    first_equal: Pairs
    num_normalised: int
    """Rows whose pair is that of an earlier row, normalised."""
    first_normalised: Pairs
    """The first of them that are not equal."""
    num_many_targets: int
    """Sources with several targets, normalised."""
    first_many_targets: Pairs


def find_repeats(
    read: Callable[[], Iterable[Identities]], *, num_rows: int, beat: Callable[[], None] = lambda: None
) -> Repeats:
    """What is repeated among the rows that `read` gives part by part, from the beginning each time."""
    num_parts = -(-num_rows // PART_ROWS) or 1
    found = [_find_in_part(*_select(read(), part, num_parts=num_parts, beat=beat)) for part in range(num_parts)]

    def first(pairs: Iterable[Pairs]) -> Pairs:
        return sorted(pair for each in pairs for pair in each)[:NUM_LISTED]

    return Repeats(
        np.sort(np.concatenate([each.equal for each in found])),
        first(each.first_equal for each in found),
        sum(each.num_normalised for each in found),
        first(each.first_normalised for each in found),
        sum(each.num_many_targets for each in found),
        first(each.first_many_targets for each in found),
    )


def _select(
    identities: Iterable[Identities], part: int, *, num_parts: int, beat: Callable[[], None]
) -> tuple[Identities, Rows]:
    """The identities whose source belongs to this part, and their row numbers."""
    chosen, numbers, start = [np.empty(0, IDENTITY)], [np.empty(0, np.int64)], 0
    for each in identities:
        mine = np.flatnonzero(each["source"] % np.uint64(num_parts) == part)
        chosen.append(each[mine])
        numbers.append(mine + start)
        start += len(each)
        beat()
    return np.concatenate(chosen), np.concatenate(numbers)


def _find_in_part(rows: Identities, numbers: Rows) -> Repeats:
    # by source, then by target, then by their texts; equal rows stay in their order
    order = np.lexsort((rows["target_text"], rows["source_text"], rows["target"], rows["source"]))
    ordered, numbers = rows[order], numbers[order]
    same_source = _like_before(ordered, "source")
    same_pair = same_source & _like_before(ordered, "target")
    is_equal = same_pair & _like_before(ordered, "source_text") & _like_before(ordered, "target_text")
    otherwise = same_pair & ~is_equal
    changes = np.flatnonzero(same_source & ~same_pair)
    # the first change of target within each source
    _, once = np.unique(ordered["source"][changes], return_index=True)
    changes = changes[once]
    return Repeats(
        numbers[is_equal],
        _first_pairs(numbers[is_equal], numbers[np.flatnonzero(is_equal) - 1]),
        int(same_pair.sum()),
        _first_pairs(numbers[otherwise], numbers[np.flatnonzero(otherwise) - 1]),
        len(changes),
        _first_pairs(numbers[changes], numbers[changes - 1]),
    )


def _like_before(rows: Identities, field: str) -> npt.NDArray[np.bool_]:
    values = rows[field]
    return np.concatenate([np.zeros(min(1, len(values)), np.bool_), values[1:] == values[:-1]])


def _first_pairs(later: Rows, earlier: Rows) -> Pairs:
    pairs: npt.NDArray[Any] = np.sort(np.stack([later, earlier], axis=1), axis=1)[:, ::-1]
    order = np.argsort(pairs[:, 0], kind="stable")[:NUM_LISTED]
    return [(int(one), int(other)) for one, other in pairs[order]]
