"""The audit of a token set, put together while its shards are joined: what was counted row by row, and what only all rows show.

Reads every shard twice, and the identities of its rows once more. Knows nothing of other sets: overlap is found elsewhere.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dstrain.data.encoding import ReadingRules
from dstrain.data.overlap import Places
from dstrain.data.repeats import Pairs, Repeats, find_repeats
from dstrain.data.row_audit import RowAudit
from dstrain.data.shards import Shard, count_identities, read_identities, read_identity, read_shard
from dstrain.data.sides import MOST_SOURCES, Side, SideProfile, collect, judge
from dstrain.data.source_counts import SourceCounts
from dstrain.run_folder.audit import Found, SetAudit, Twins

CHUNK_ROWS = 8192
"""Rows whose tokens are looked at together."""


class SetAuditor:
    """Gathers what the shards of a set say of its rows."""

    def __init__(self, reading: ReadingRules) -> None:
        self._reading = reading
        self._rows = RowAudit()
        self._paths: list[Path] = []
        self._num_rows: dict[int, int] = {}
        self._profiles: dict[int, SideProfile] = {}
        self._firsts = SourceCounts()

    def add(self, shard: Shard) -> None:
        """Count the rows of a shard."""
        self._paths.append(shard.folder)
        self._rows.join(shard.audit)
        self._firsts.join(shard.of_sources)
        for number, count in shard.of_sources.used.items():
            self._num_rows[number] = self._num_rows.get(number, 0) + count
        for number, _, source, target in _chunks(shard):
            if number < MOST_SOURCES:
                profile = self._profiles.setdefault(number, SideProfile())
                profile.add(source, target)

    @property
    def names(self) -> dict[int, str]:
        """What stands before the colon of `file:line`, by the number of the data source."""
        return {number: self._rows.place(number) for number in sorted(self._num_rows)}

    def finish(self, *, beat: Callable[[], None]) -> SetAudit:
        """The audit of all rows."""
        checks: dict[int, dict[str, Found]] = {}
        weights = {number: profile.weights() for number, profile in self._profiles.items()}
        for path in self._paths:
            for number, of_rows, source, target in _chunks(read_shard(path, reading=self._reading)):
                if number in weights:
                    judged = judge(source, target, weights=weights[number])
                    place = self._rows.place(number)
                    checks[number] = collect(checks.get(number, {}), judged, place=place, lines=of_rows)
            beat()
        repeats = repeats_of(self._paths, beat=beat)
        places = Places(list(self.names.values()), [self._num_rows[number] for number in self.names])
        lines = _Lines(self._paths)

        def twins(number: int, pairs: Pairs) -> Twins:
            shown = [[places.where(row, line=lines.line(row)) for row in pair] for pair in pairs]
            return Twins(number, tuple((later, earlier) for later, earlier in shown))

        return SetAudit(
            rows=sum(self._num_rows.values()),
            sources=tuple(self._rows.report(checks, tags=self._firsts.tags())),
            equal=twins(len(repeats.equal), repeats.first_equal),
            normalised=twins(repeats.num_normalised, repeats.first_equal + repeats.first_normalised),
            many_targets=twins(repeats.num_many_targets, repeats.first_many_targets),
        )


def repeats_of(paths: Sequence[Path], *, beat: Callable[[], None] = lambda: None) -> Repeats:
    """Which rows of these shards repeat an earlier one; rows are numbered through all shards."""
    num_rows = sum(map(count_identities, paths))
    return find_repeats(lambda: map(read_identities, paths), num_rows=num_rows, beat=beat)


class _Lines:
    """The line of a row, by its number through all shards."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._ends = np.cumsum([count_identities(path) for path in paths])

    def line(self, row: int) -> int:
        shard = int(np.searchsorted(self._ends, row, side="right"))
        before = int(self._ends[shard - 1]) if shard else 0
        return int(read_identity(self._paths[shard], row - before)["line"])


def _chunks(shard: Shard) -> Iterator[tuple[int, Any, Side, Side]]:
    """The rows of a shard in parts of one data source: its number, the lines of the rows, and the tokens of both sides."""
    starts = [np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]) for lengths in shard.lengths]
    first = 0
    for number, count in sorted(shard.of_sources.used.items()):
        for begin in range(first, first + count, CHUNK_ROWS):
            rows = slice(begin, min(begin + CHUNK_ROWS, first + count))
            source, target = (
                (ids[ends[rows.start] : ends[rows.stop]], lengths[rows])
                for ids, lengths, ends in zip(shard.ids, shard.lengths, starts, strict=True)
            )
            yield number, shard.identities["line"][rows], source, target
        first += count
