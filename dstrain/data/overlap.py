"""Finds the rows of an evaluation set that are in training, from the identities of both: equal, and normalised.

The evaluation set is held in memory, training rows stream by. Knows nothing of texts; near duplicates are found by `near.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dstrain.data.identity import WAYS, Identities, Keys, keys_of
from dstrain.data.tally import Array
from dstrain.run_folder.audit import NUM_LISTED, Shared

SIFT_BITS = 20
"""Most training rows are sifted out by the lowest bits of their key, which costs a fraction of a search."""


@dataclass(frozen=True)
class Places:
    """Where the rows of a set are: for each data source what stands before the colon of `file:line`, and how many rows it has."""

    names: Sequence[str]
    num_rows: Sequence[int]

    def where(self, row: int, *, line: int) -> str:
        """`file:line` of a row with this number."""
        number = int(np.searchsorted(np.cumsum(self.num_rows), row, side="right"))
        return f"{self.names[number]}:{line}"


class _Finder:
    """Which evaluation rows are in training, in one way of being the same."""

    def __init__(self, keys: Keys) -> None:
        self._keys, self._of_row = np.unique(keys, return_inverse=True)
        self._sieve = np.zeros(1 << SIFT_BITS, dtype=np.bool_)
        self._sieve[_sift(self._keys)] = True
        self._first = np.full(len(self._keys), -1, dtype=np.int64)
        """By key: the number of the first training row, and its line."""
        self._lines = np.zeros(len(self._keys), dtype=np.int64)
        self._train_rows = 0

    def add(self, keys: Keys, *, start: int, lines: Array) -> None:
        """Look for training rows, of which the first has the number `start`."""
        rows = np.flatnonzero(self._sieve[_sift(keys)])
        places = np.minimum(np.searchsorted(self._keys, keys[rows]), len(self._keys) - 1)
        is_there = self._keys[places] == keys[rows]
        rows, places = rows[is_there], places[is_there]
        self._train_rows += len(rows)
        places, once = np.unique(places, return_index=True)
        rows = rows[once]
        is_new = self._first[places] < 0
        self._first[places[is_new]], self._lines[places[is_new]] = start + rows[is_new], lines[rows[is_new]]

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Whether each evaluation row is in training `[rows]`."""
        return self._first[self._of_row] >= 0

    def shared(self, rows: Identities, *, train: Places, evaluation: Places) -> Shared:
        """What was found; `rows` are the identities of the evaluation rows."""
        found = np.flatnonzero(self.found)
        first = [
            (
                evaluation.where(row, line=int(rows["line"][row])),
                train.where(int(self._first[self._of_row[row]]), line=int(self._lines[self._of_row[row]])),
            )
            for row in found[:NUM_LISTED].tolist()
        ]
        return Shared(len(found), self._train_rows, tuple(first))


def _sift(keys: Keys) -> Array:
    return keys & np.uint64((1 << SIFT_BITS) - 1)


def find_shared(
    evaluation: Identities, training: Iterable[Identities], *, places: tuple[Places, Places]
) -> tuple[dict[str, Shared], list[int]]:
    """How many evaluation rows are in training in each of WAYS; and the numbers of those whose source is, normalised.

    `places` are those of the training and of the evaluation rows.
    """
    finders = {way: _Finder(keys_of(evaluation, level=way[0], view=way[1])) for way in WAYS}
    start = 0
    for rows in training:
        for (level, view), finder in finders.items():
            finder.add(keys_of(rows, level=level, view=view), start=start, lines=rows["line"])
        start += len(rows)
    train, held_out = places
    ways = {
        " ".join(way): finder.shared(evaluation, train=train, evaluation=held_out) for way, finder in finders.items()
    }
    return ways, np.flatnonzero(finders["normalised", "source"].found).tolist()
