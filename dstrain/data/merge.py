"""Joins the shards of a token set into its files: flat arrays of token ids, lengths and starts, and the list of lost rows.

The hash of the ids is that of 32-bit ids in the order of the rows, whatever they take on disk and however they were cut into
shards. Knows nothing of where shards come from, nor how the files are found again.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from dstrain.data.bad_rows import BadRowLog, Reason
from dstrain.data.counts import Counts
from dstrain.data.drops import DROPPED, drops_rows, find_drops, without
from dstrain.data.encoding import ReadingRules
from dstrain.data.repeats import Rows
from dstrain.data.set_audit import SetAuditor
from dstrain.data.shards import BAD_ROWS, EXAMPLES, IDENTITIES, SIDES, Beat, Pair, Shard, no_beat, read_shard
from dstrain.data.source_counts import SourceCounts
from dstrain.run_folder.audit import set_as_json

OCCURRING = "occurring.bin"
"""Which ids occur on a side; after the side's name."""

MOST_PAIRS = 1000
"""Pairs of languages that a report lists, those of the most rows first."""

STARTS_EVERY = 64
"""Rows from one stored start of ids to the next where no row repeats: the start of a row between them follows from lengths."""


class _Side:
    """One side's flat files: all ids, for every row how many there are, and for every `starts_every`-th where they start."""

    def __init__(self, folder: Path, *, side: str, starts_every: int, num_ids: int, stack: ExitStack) -> None:
        def create(part: str) -> IO[bytes]:
            return stack.enter_context((folder / f"{side}_{part}.bin").open("wb"))

        self._ids, self._starts, self._lengths = create("ids"), create("starts"), create("lengths")
        self._starts_every = starts_every
        self._digests = [hashlib.sha256(), hashlib.sha256()]
        self._num_ids = self._num_rows = 0
        self._occurs = np.zeros(num_ids, dtype=np.bool_)
        self.num_tokens = 0

    def add(self, ids: npt.NDArray[Any], lengths: npt.NDArray[np.int32], *, repeats: npt.NDArray[np.int32]) -> None:
        """Append the ids of some examples; a repeated example is stored once and referenced several times."""
        starts = self._num_ids + np.cumsum(lengths, dtype="<i8") - lengths
        row_lengths = np.repeat(lengths, repeats)
        self._ids.write(ids.tobytes())
        first = -self._num_rows % self._starts_every
        self._starts.write(np.repeat(starts, repeats)[first :: self._starts_every].tobytes())
        self._lengths.write(row_lengths.tobytes())
        self._digests[0].update(ids.astype("<i4").tobytes())
        self._digests[1].update(row_lengths.tobytes())
        self._occurs[ids] = True
        self._num_ids += len(ids)
        self._num_rows += len(row_lengths)
        self.num_tokens += int(row_lengths.sum(dtype=np.int64))

    def occurring(self) -> npt.NDArray[np.int32]:
        """The ids that occur, ascending."""
        return np.flatnonzero(self._occurs).astype("<i4")

    def digest(self) -> bytes:
        """Hash of the ids and of their division into rows."""
        return b"".join(digest.digest() for digest in self._digests)


def merge_shards(
    shards: Iterable[Path],
    *,
    reading: ReadingRules,
    folder: Path,
    places: Sequence[str] = ("",),
    starts_every: int,
    beat: Beat = no_beat,
) -> dict[str, Any]:
    """Write the files of a token set into a folder; returns its report. `starts_every` must be 1 if rows repeat.

    `places` are the names of the data sources. Raises UserError if one has no usable row, or if a limit cuts every row.
    """
    counts, of_sources, log, auditor = Counts(), SourceCounts(), BadRowLog(), SetAuditor(reading)
    num_examples = num_rows = 0
    pairs = Counter[Pair]()
    with ExitStack() as stack:
        num_ids = reading.encoder.vocabulary_size
        sides = [_Side(folder, side=side, starts_every=starts_every, num_ids=num_ids, stack=stack) for side in SIDES]
        texts = stack.enter_context((folder / EXAMPLES).open("wb")) if reading.split == "eval" else None
        identities, dropped = (stack.enter_context((folder / name).open("wb")) for name in (IDENTITIES, DROPPED))
        for shard in _read_shards(shards, reading=reading, auditor=auditor, log=log, dropped=dropped):
            for side, ids, lengths in zip(sides, shard.ids, shard.lengths, strict=True):
                side.add(ids, lengths, repeats=shard.repeats)
            identities.write(shard.identities.tobytes())
            num_examples += len(shard.repeats)
            num_rows += int(shard.repeats.sum(dtype=np.int64))
            counts.join(shard.counts)
            of_sources.join(shard.of_sources)
            for pair, number in shard.count_pairs():
                pairs[pair] += number
            if texts is not None:
                _append(texts, shard.folder / EXAMPLES)
            beat(0)
    for name, side in zip(SIDES, sides, strict=True):
        side.occurring().tofile(folder / f"{name}_{OCCURRING}")
    log.save(folder / BAD_ROWS)
    counts.check_limits(reading=reading)
    skipped, kept = log.count("skip"), log.count("keep")
    return {
        "rows_read": num_examples + sum(skipped.values()),
        "distinct_rows": num_examples,
        "rows": num_rows,
        "skipped": skipped,
        "bad_places": log.listed(),
        "truncated": log.count("truncate").get("too_long", 0),
        "kept_with_unknown": kept.get("unknown_token", 0),
        "kept_too_long": kept.get("too_long", 0),
        "source_tokens": sides[0].num_tokens,
        "target_tokens": sides[1].num_tokens,
        "fingerprint": hashlib.sha256(sides[0].digest() + sides[1].digest()).hexdigest(),
        **counts.report(),
        "pairs": [[*pair, number] for pair, number in pairs.most_common(MOST_PAIRS)],
        "by_source": of_sources.report(places, log=log, split=reading.split),
        "places": [[name, of_sources.used[number]] for number, name in auditor.names.items()],
        "audit": set_as_json(auditor.finish(beat=lambda: beat(0))),
    }


def _read_shards(
    paths: Iterable[Path], *, reading: ReadingRules, auditor: SetAuditor, log: BadRowLog, dropped: IO[bytes]
) -> Iterator[Shard]:
    """The shards, without the rows that are left out because of others; all rows are audited, lost ones are logged."""
    drops: dict[Reason, Rows] = {}
    if drops_rows(reading):
        paths = list(paths)  # which rows to leave out is known when all are there
        drops = find_drops(paths, reading=reading)
        dropped.write(np.sort(np.concatenate(list(drops.values()))).astype("<i8").tobytes())
    start = 0
    for path in paths:
        shard = read_shard(path, reading=reading)
        auditor.add(shard)
        log.join(shard.bad_rows, path=path / BAD_ROWS)
        yield without(shard, drops, start=start, reading=reading, log=log) if drops else shard
        start += len(shard.repeats)


def _append(file: IO[bytes], path: Path) -> None:
    with path.open("rb") as part:
        shutil.copyfileobj(part, file)
