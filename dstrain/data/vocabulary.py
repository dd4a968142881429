"""The token ids for which a model has rows, and the row of each. Pure numpy; knows nothing of models.

With `model.vocabulary: seen` embeddings and head have a row for each id that can occur, and no others. Token sets, texts and
records hold the tokenizer's ids; rows are what tensors hold.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from dstrain.data.arrays import Ids, Rows

IGNORED = -100
"""The label of a position that does not count, as in `torch.nn.functional.cross_entropy`."""


@dataclass(frozen=True)
class Vocabulary:
    """The ids that a model has rows for. Without `kept`, it has a row for every id, under the same number.

    Rows are in the order of the ids, so that ties between tokens are broken alike in both spaces.
    """

    kept: tuple[int, ...] | None = None
    """Ascending ids; the first one is in row 0."""
    read_only: tuple[int, ...] = ()
    """Further ids, ascending, that the model reads but neither writes nor trains; their rows come last."""
    unknown_id: int = 0
    """The id that stands in where a model must read a token for which it has no row: after it in a reference."""

    @property
    def is_whole(self) -> bool:
        """Whether the model has a row for every id."""
        return self.kept is None

    @cached_property
    def _ids(self) -> Ids:
        return np.asarray(self.kept, dtype=np.int32)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the ids that have rows."""
        return hashlib.sha256(self._ids.astype("<i4").tobytes()).hexdigest()

    def __len__(self) -> int:
        """Number of rows of a model that has not all of them."""
        return len(self._ids)

    def row(self, token_id: int) -> int:
        """The row of an id. Raises KeyError if it has none."""
        if self.is_whole:
            return token_id
        (row,) = self._rows(np.asarray([token_id], dtype=np.int32), absent=-1).tolist()
        if row < 0:
            raise KeyError(token_id)
        return int(row)

    def inputs(self, ids: Ids) -> Ids:
        """The rows that a model reads for ids `[tokens]`."""
        if self.is_whole:
            return ids
        rows = self._rows(ids, absent=self.row(self.unknown_id))
        if self.read_only:
            more = _find(ids, among=np.asarray(self.read_only, dtype=np.int32), absent=-1)
            rows = np.where(more < 0, rows, len(self) + more).astype(np.int32)
        return rows

    def labels(self, ids: Ids) -> Ids:
        """The rows that a model should predict for ids `[tokens]`; IGNORED where it has none."""
        return self._rows(ids, absent=IGNORED)

    def ids(self, rows: Rows) -> Rows:
        """The ids in rows `[tokens]`."""
        return rows if self.is_whole else self._ids[rows].astype(np.int64)

    def id(self, row: int) -> int:
        """The id in a row."""
        return row if self.is_whole else int(self._ids[row])

    def reading(self, ids: Ids) -> "Vocabulary":
        """The same, with rows to read these ids too."""
        return self if self.is_whole else replace(self, read_only=tuple(self.lacks(ids).tolist()))

    def lacks(self, ids: Ids) -> Ids:
        """Those of the ids that have no row, each once, ascending."""
        return np.unique(ids[self._rows(ids, absent=-1) < 0])

    def _rows(self, ids: Ids, *, absent: int) -> Ids:
        if self.is_whole:
            return ids
        return _find(ids, among=self._ids, absent=absent)


def _find(ids: Ids, *, among: Ids, absent: int) -> Ids:
    """The place of each id in an ascending array."""
    places = np.minimum(np.searchsorted(among, ids), len(among) - 1)
    return np.where(among[places] == ids, places, absent).astype(np.int32)


WHOLE = Vocabulary()
"""That of a model with all rows."""
