"""Where the rows of a matrix are in a checkpoint that holds other rows of it. Works on numbers; knows no tensors."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class RowsOf:
    """Which rows of a matrix a parameter has, and which were saved; None is all of them."""

    own: tuple[int, ...] | None
    """Ascending."""
    saved: tuple[int, ...] | None
    """Ascending."""
    num_all: int
    width: int
    """Elements of a row."""

    @property
    def saved_numel(self) -> int:
        """Elements that were saved."""
        return self.width * (self.num_all if self.saved is None else len(self.saved))


@dataclass(frozen=True, slots=True)
class Piece:
    """Elements `start` to `stop` of a flattened parameter, which were saved from `saved_start` on."""

    start: int
    stop: int
    saved_start: int


def find_pieces(start: int, stop: int, *, rows: RowsOf) -> Iterator[Piece]:
    """Where elements `start` to `stop` of a flattened parameter were saved; rows that were not saved are left out."""
    if start >= stop:
        return
    width, first = rows.width, start // rows.width
    ids = _ids(rows.own, num_all=rows.num_all)[first : (stop - 1) // width + 1]
    saved = _ids(rows.saved, num_all=rows.num_all)
    places = np.minimum(np.searchsorted(saved, ids), len(saved) - 1)
    found = np.flatnonzero(saved[places] == ids)
    # a run of rows that follow each other on both sides is one piece
    ends = np.flatnonzero((np.diff(found) != 1) | (np.diff(places[found]) != 1)) + 1
    for run in np.split(found, ends) if len(found) else ():
        low, high = width * (first + int(run[0])), width * (first + int(run[-1]) + 1)
        begin = max(start, low)
        yield Piece(begin, min(stop, high), width * int(places[run[0]]) + begin - low)


def _ids(rows: tuple[int, ...] | None, *, num_all: int) -> npt.NDArray[np.int64]:
    return np.arange(num_all) if rows is None else np.asarray(rows, dtype=np.int64)
