"""Finds evaluation rows of which training has a near duplicate: texts that share four fifths of their runs of five characters.

Exact, without sampling: the rarest runs of each evaluation text are indexed, as many as a near duplicate cannot all lack. The
runs of training texts are sifted in numpy; only texts with a run in the index are compared. Of normalised texts, as in
`identity.py`, only letters and digits count. Memory is that of the evaluation set.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from math import ceil

import numpy as np
import numpy.typing as npt

from dstrain.data.identity import normalise
from dstrain.data.sources import Row
from dstrain.run_folder.audit import NUM_LISTED, Shared

RUN = 5
"""Characters of a run; the last ones of a text are filled up, so that a short text has runs too."""

MIN_SHARE = 0.8
"""Runs in both texts, of the runs in either (Jaccard)."""

SIFT_BITS = 22
BATCH_ROWS = 500
FACTOR = np.uint64(0x9E3779B97F4A7C15)

NO_LETTERS = re.compile(r"[\W_]+")

Runs = npt.NDArray[np.uint64]


class _Index:
    """The runs of one side of the evaluation rows."""

    def __init__(self, texts: Sequence[str]) -> None:
        runs, starts = _runs(texts)
        self.runs = [frozenset(each.tolist()) for each in np.split(runs, starts[1:])]
        frequency = Counter(run for each in self.runs for run in each)
        self._rows: defaultdict[int, list[int]] = defaultdict(list)
        for row, each in enumerate(self.runs):
            prefix = len(each) - ceil(MIN_SHARE * len(each)) + 1
            for run in sorted(each, key=lambda run: (frequency[run], run))[:prefix]:
                self._rows[run].append(row)
        self._sieve = np.zeros(1 << SIFT_BITS, dtype=np.bool_)
        self._sieve[_sift(np.fromiter(self._rows, dtype=np.uint64, count=len(self._rows)))] = True

    def candidates(self, texts: Sequence[str]) -> Iterable[tuple[int, frozenset[int], set[int]]]:
        """Texts that may be near duplicates: the place of each, its runs, and the rows that it may be near to."""
        runs, starts = _runs(texts)
        hits = np.flatnonzero(self._sieve[_sift(runs)])
        owners = np.searchsorted(starts, hits, side="right") - 1
        found: defaultdict[int, set[int]] = defaultdict(set)
        for owner, run in zip(owners.tolist(), runs[hits].tolist(), strict=True):
            if run in self._rows:
                found[owner].update(self._rows[run])
        ends = [*starts[1:].tolist(), len(runs)]
        for owner, rows in found.items():
            yield owner, frozenset(runs[starts[owner] : ends[owner]].tolist()), rows

    def is_near(self, row: int, runs: frozenset[int]) -> bool:
        """Whether a text with these runs is a near duplicate of a row."""
        mine = self.runs[row]
        least = MIN_SHARE * max(len(mine), len(runs))
        if min(len(mine), len(runs)) < least:
            return False
        shared = len(mine & runs)
        return shared >= MIN_SHARE * (len(mine) + len(runs) - shared)


def _runs(texts: Sequence[str]) -> tuple[Runs, npt.NDArray[np.int64]]:
    """A number for every run of all texts, one after the other, and where each text starts."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    fill = "\0" * (RUN - 1)
    joined = fill.join(texts) + fill
    codes = np.frombuffer(joined.encode("utf-32-le", errors="surrogatepass"), dtype="<u4").astype(np.uint64)
    numbers = np.zeros(len(codes) - RUN + 1, dtype=np.uint64)
    for place in range(RUN):
        numbers = (numbers ^ codes[place : len(codes) - RUN + 1 + place]) * FACTOR
        numbers ^= numbers >> np.uint64(29)
    # runs that begin in the filling belong to no text
    begins = np.cumsum(lengths + RUN - 1) - (lengths + RUN - 1)
    inside = np.arange(lengths.sum()) + np.repeat(begins - (np.cumsum(lengths) - lengths), lengths)
    return numbers[inside], np.cumsum(lengths) - lengths


def _sift(runs: Runs) -> Runs:
    return runs & np.uint64((1 << SIFT_BITS) - 1)


class NearFinder:
    """Looks for near duplicates of evaluation rows among training rows."""

    def __init__(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """`rows` are source, target and `file:line` of the evaluation rows."""
        sources, targets, self._where = (list(column) for column in zip(*rows, strict=True))
        self._source, self._target = _Index(_normalised(sources)), _Index(_normalised(targets))
        self._found: dict[str, dict[int, str]] = {"source": {}, "target": {}, "pair": {}}
        """By view: evaluation rows with `file:line` of the first training row that is near."""

    def add(self, rows: Iterable[Row]) -> None:
        """Look at training rows."""
        iterator = iter(rows)
        while batch := list(islice(iterator, BATCH_ROWS)):
            sources, targets = _normalised([row.source for row in batch]), _normalised([row.target for row in batch])
            self._add_sources(batch, sources, targets)
            found = self._found["target"]
            for place, runs, candidates in self._target.candidates(targets):
                for row in candidates - found.keys():
                    if self._target.is_near(row, runs):
                        found[row] = batch[place].where

    def _add_sources(self, batch: Sequence[Row], sources: Sequence[str], targets: Sequence[str]) -> None:
        found, pairs = self._found["source"], self._found["pair"]
        for place, runs, candidates in self._source.candidates(sources):
            near = [row for row in candidates - pairs.keys() if self._source.is_near(row, runs)]
            target_runs = frozenset(_runs([targets[place]])[0].tolist()) if near else frozenset()
            for row in near:
                found.setdefault(row, batch[place].where)
                if self._target.is_near(row, target_runs):
                    pairs[row] = batch[place].where

    def shared(self) -> dict[str, Shared]:
        """What was found, by way, such as `near source`. Training rows are not counted."""
        return {
            f"near {view}": Shared(
                len(found), None, tuple((self._where[row], found[row]) for row in sorted(found)[:NUM_LISTED])
            )
            for view, found in self._found.items()
        }


def _normalised(texts: Sequence[str]) -> list[str]:
    return [NO_LETTERS.sub("", text.decode(errors="surrogatepass")) for text in normalise(texts)]
