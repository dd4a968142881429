"""Leaves training rows out because of other rows: those that are in the evaluation set, and those that repeat an earlier one.

Rows are compared by their identities alone. Knows nothing of where shards come from.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dstrain.data.bad_rows import BadRow, BadRowLog, Reason
from dstrain.data.encoding import ReadingRules
from dstrain.data.identity import Identities, keys_of
from dstrain.data.repeats import Rows
from dstrain.data.set_audit import repeats_of
from dstrain.data.shards import Shard, read_identities

DROPPED = "dropped.bin"
"""In a token set: numbers of the examples that were left out, among all that were read."""


def drops_rows(reading: ReadingRules) -> bool:
    """Whether training rows may be left out because of others."""
    return reading.split == "train" and bool(reading.held_out or reading.rules.duplicates == "skip")


def sources_of(evaluation: Identities) -> bytes:
    """The hashes of normalised sources, for `ReadingRules.held_out`."""
    return np.unique(keys_of(evaluation, level="normalised", view="source")).astype("<u8").tobytes()


def find_drops(paths: Sequence[Path], *, reading: ReadingRules) -> dict[Reason, Rows]:
    """Numbers of the examples to leave out, through all shards, by reason; each is there once."""
    held_out = np.frombuffer(reading.held_out, dtype="<u8")
    found: list[Rows] = []
    start = 0
    for path in paths:
        identities = read_identities(path)
        is_held_out = np.isin(keys_of(identities, level="normalised", view="source"), held_out)
        found.append(np.flatnonzero(is_held_out) + start)
        start += len(identities)
    overlap = np.concatenate([np.empty(0, np.int64), *found])
    if reading.rules.duplicates != "skip":
        return {"overlap": overlap}
    return {"overlap": overlap, "duplicate": np.setdiff1d(repeats_of(paths).equal, overlap)}


def without(shard: Shard, drops: dict[Reason, Rows], *, start: int, reading: ReadingRules, log: BadRowLog) -> Shard:
    """The shard without these examples; `start` is the number of its first one. They are listed in `log`."""
    reasons: dict[int, Reason] = {}
    for reason, rows in drops.items():
        inside = rows[(rows >= start) & (rows < start + len(shard.repeats))] - start
        reasons.update(dict.fromkeys(inside.tolist(), reason))
    keep = np.ones(len(shard.repeats), dtype=np.bool_)
    keep[list(reasons)] = False
    ends = np.cumsum(shard.lengths[0], dtype=np.int64)
    numbers = sorted(shard.of_sources.used)
    sources = np.repeat(numbers, [shard.of_sources.used[number] for number in numbers])
    for row, reason in sorted(reasons.items()):
        number = int(sources[row])
        ids = shard.ids[0][ends[row] - shard.lengths[0][row] : ends[row]].tolist()
        where = f"{shard.audit.place(number)}:{shard.identities['line'][row]}"
        log(BadRow(where, reason, reading.encoder.decode(ids), "skip", number))
        shard.of_sources.used[number] -= 1
    return replace(
        shard,
        ids=[ids[np.repeat(keep, lengths)] for ids, lengths in zip(shard.ids, shard.lengths, strict=True)],
        lengths=[lengths[keep] for lengths in shard.lengths],
        repeats=shard.repeats[keep],
        identities=shard.identities[keep],
        pair_numbers=shard.pair_numbers[keep],
    )


def read_dropped(folder: Path) -> npt.NDArray[np.int64]:
    """Numbers of the examples that a token set was made without, ascending."""
    path = folder / DROPPED
    return np.fromfile(path, dtype="<i8") if path.exists() else np.empty(0, dtype=np.int64)
