"""Shards of a token set that is being made: the token ids of SHARD_RECORDS records each, in a folder that appears complete.

A start after a kill resumes behind the shards that are there. Several processes may each make a share of
them: every one reads all records, which takes a fraction of the time of tokenising them. Knows nothing of the finished set.
"""

import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from dstrain.config.data import Source
from dstrain.data.bad_rows import BadRowLog
from dstrain.data.counts import Counts
from dstrain.data.encoding import ReadingRules, encode_examples
from dstrain.data.examples import Example, build_examples
from dstrain.data.identity import IDENTITY, Identities, identify
from dstrain.data.row_audit import RowAudit
from dstrain.data.source_counts import SourceCounts
from dstrain.data.sources import build_rows, read_records
from dstrain.run_folder.atomic import write_file
from dstrain.run_folder.sealed import check_if_made, sealed_folder

SHARD_RECORDS = 1 << 17
"""Records of a shard: what a kill costs at most, and what is too little to start further processes for."""

BEAT_RECORDS = 1000

SIDES = ("source", "target")
DESCRIPTION = "shard.json"
PAIRS = "pairs.bin"
"""The number of each example's pair, in the order of the description's list."""
BAD_ROWS = "bad_rows.jsonl"
EXAMPLES = "examples.jsonl"
IDENTITIES = "identities.bin"
END = "end.json"
"""Beside the shards: their number, once somebody has read to the end of the data."""

Beat = Callable[[int], None]
"""Called again and again during long work, with the number of records done since the last call: 0 if another counts them."""

Pair = tuple[str | None, str | None, str]
"""Source language, target language and the text before the source."""

T = TypeVar("T")


def no_beat(records: int) -> None:
    """Does nothing: for work that no one watches."""


@dataclass(frozen=True, slots=True)
class Share:
    """The shards that one of several processes makes: every `of`-th, from `first` on."""

    first: int = 0
    of: int = 1

    def has(self, number: int) -> bool:
        """Whether the shard with this number belongs to this share."""
        return number % self.of == self.first


def id_type(reading: ReadingRules) -> str:
    """The type of token ids on disk: 16 bits where the vocabulary allows."""
    return "<u2" if reading.encoder.vocabulary_size <= 1 << 16 else "<i4"


def shard_path(folder: Path, number: int) -> Path:
    """The folder of one shard."""
    return folder / f"{number:06d}"


def count_shards(folder: Path) -> int | None:
    """How many shards the data have; None as long as no one has read to their end."""
    end = folder / END
    return int(json.loads(end.read_bytes())) if end.exists() else None


def make_shards(
    sources: Sequence[Source],
    *,
    reading: ReadingRules,
    folder: Path,
    encode_elsewhere: Callable[[Path], Iterator[None]] | None = None,
    beat: Beat = no_beat,
) -> Generator[Path, None, None]:
    """All shards of the sources in order, each as soon as it is there. Shards that are in the folder are not made again.

    If there is more than one, `encode_elsewhere` makes them in the folder: it yields again and again, and ends with the last.
    Raises what `encode_shards` raises, and FileNotFoundError if shards were removed meanwhile.
    """
    known = count_shards(folder)
    numbers: Iterable[int]
    if known is not None and all(shard_path(folder, number).exists() for number in range(known)):
        numbers = range(known)
    elif encode_elsewhere is not None and _is_large(sources):
        numbers = _await_shards(folder, encode_elsewhere(folder))
    else:
        numbers = encode_shards(sources, reading=reading, folder=folder, beat=beat)
    for number in numbers:
        check_if_made(shard_path(folder, number))
        yield shard_path(folder, number)


def _is_large(sources: Iterable[Source]) -> bool:
    return next(islice(read_records(sources), SHARD_RECORDS, None), None) is not None


def _await_shards(folder: Path, progress: Iterator[None]) -> Iterator[int]:
    number = 0
    for _ in chain(progress, [None]):
        while shard_path(folder, number).exists():
            yield number
            number += 1
    if number != count_shards(folder):
        raise FileNotFoundError(f"{shard_path(folder, number)} is missing: start again")


def encode_shards(
    sources: Iterable[Source], *, reading: ReadingRules, folder: Path, share: Share = Share(), beat: Beat = no_beat
) -> Iterator[int]:
    """Make those shards of a share that are not in the folder yet; yields the number of each as soon as it is there.

    Raises UserError if a source cannot be read, UnusableRowError where a rule is `error`.
    """
    records = read_records(sources)
    for number in count():
        first = next(records, None)
        if first is None:
            break
        part = beating(chain([first], islice(records, SHARD_RECORDS - 1)), beat if share.has(number) else _silent(beat))
        if share.has(number) and not shard_path(folder, number).exists():
            with sealed_folder(shard_path(folder, number)) as draft:
                log, task, rules = BadRowLog(), reading.task, reading.rules
                is_eval = reading.split == "eval"
                rows = build_rows(part, task=task, rules=rules, on_bad=log, has_references=is_eval)
                write_shard(
                    build_examples(rows, task=task, rules=rules, on_bad=log), reading=reading, folder=draft, log=log
                )
        deque(part, maxlen=0)  # what is read over belongs to others, or was made before
        if share.has(number):
            yield number
    write_file(folder / END, json.dumps(number))


def _silent(beat: Beat) -> Beat:
    return lambda records: beat(0)


def beating(items: Iterable[T], beat: Beat) -> Iterator[T]:
    """The items, with a beat after every BEAT_RECORDS of them and after the last."""
    number = 0
    for number, item in enumerate(items, start=1):
        yield item
        if number % BEAT_RECORDS == 0:
            beat(BEAT_RECORDS)
    beat(number % BEAT_RECORDS)


def write_shard(examples: Iterable[Example], *, reading: ReadingRules, folder: Path, log: BadRowLog) -> None:
    """Tokenise examples into a folder; `log` holds the rows lost before, and gets those lost here.

    Raises UnusableRowError where a rule is `error`.
    """
    counts, of_sources, audit, dtype = Counts(), SourceCounts(), RowAudit(), id_type(reading)
    numbers: dict[Pair, int] = {}
    with ExitStack() as stack:

        def create(name: str) -> Any:
            return stack.enter_context((folder / name).open("wb"))

        ids = [create(f"{side}_ids.bin") for side in SIDES]
        lengths = [create(f"{side}_lengths.bin") for side in SIDES]
        repeats, identities, pairs = create("repeats.bin"), create(IDENTITIES), create(PAIRS)
        texts = create(EXAMPLES) if reading.split == "eval" else None
        for encoded in encode_examples(examples, reading=reading, on_bad=log):
            for item in encoded:
                counts.add(item, reading=reading)
                of_sources.add(item.example)
            of_rows = [numbers.setdefault(pair_of(item.example), len(numbers)) for item in encoded]
            pairs.write(np.asarray(of_rows, dtype="<i4").tobytes())
            found = identify([item.example for item in encoded])
            identities.write(found.tobytes())
            audit.add(encoded, found)
            for side, rows in enumerate(([item.source_ids for item in encoded], [item.target_ids for item in encoded])):
                ids[side].write(np.fromiter(chain.from_iterable(rows), dtype=dtype).tobytes())
                lengths[side].write(np.asarray([len(row) for row in rows], dtype="<i4").tobytes())
            repeats.write(np.asarray([item.example.repeat for item in encoded], dtype="<i4").tobytes())
            if texts is not None:
                lines = (json.dumps(asdict(item.example), ensure_ascii=False) + "\n" for item in encoded)
                texts.writelines(line.encode() for line in lines)
    log.save(folder / BAD_ROWS)
    bad = [[*kind, number, log.places[kind]] for kind, number in log.counts.items()]
    description = {
        "counts": asdict(counts),
        "sources": of_sources.as_json(),
        "bad_rows": bad,
        "pairs": list(numbers),
        "audit": audit.as_json(),
    }
    write_file(folder / DESCRIPTION, json.dumps(description))


@dataclass(frozen=True)
class Shard:
    """A shard that was written. Arrays are those of distinct examples; `repeats` says how often each is a row."""

    folder: Path
    ids: Sequence[npt.NDArray[Any]]
    """Of both sides, source before target: all ids `[tokens]`."""
    lengths: Sequence[npt.NDArray[np.int32]]
    """Of both sides: tokens by example `[examples]`."""
    repeats: npt.NDArray[np.int32]
    counts: Counts
    of_sources: SourceCounts
    bad_rows: Sequence[tuple[Any, Any, int, int, list[str]]]
    """Reason, action, number of the data source, how many, and the first of them as `file:line`."""
    audit: RowAudit
    identities: Identities
    pairs: Sequence[Pair]
    """The distinct pairs of the shard, before rows were left out."""
    pair_numbers: npt.NDArray[np.int32]
    """Which of them each example has `[examples]`."""

    def count_pairs(self) -> Iterator[tuple[Pair, int]]:
        """How many rows of an epoch each pair has; none that no example has."""
        rows = np.bincount(self.pair_numbers, weights=self.repeats, minlength=len(self.pairs))
        yield from ((pair, int(number)) for pair, number in zip(self.pairs, rows, strict=True) if number)


def pair_of(example: Example) -> Pair:
    """The languages and the prefix of a row."""
    return example.source_language, example.target_language, example.source_prefix


def read_shard(folder: Path, *, reading: ReadingRules) -> Shard:
    """A shard that `write_shard` has written."""
    description = json.loads((folder / DESCRIPTION).read_bytes())
    return Shard(
        folder,
        [np.fromfile(folder / f"{side}_ids.bin", dtype=id_type(reading)) for side in SIDES],
        [np.fromfile(folder / f"{side}_lengths.bin", dtype="<i4") for side in SIDES],
        np.fromfile(folder / "repeats.bin", dtype="<i4"),
        Counts(**description["counts"]),
        SourceCounts.from_json(description["sources"]),
        [tuple(each) for each in description["bad_rows"]],
        RowAudit.from_json(description["audit"]),
        read_identities(folder),
        [(source, target, prefix) for source, target, prefix in description["pairs"]],
        np.fromfile(folder / PAIRS, dtype="<i4"),
    )


def read_identities(folder: Path) -> Identities:
    """The identities of the examples of a shard or a token set `[examples]`."""
    return np.fromfile(folder / IDENTITIES, dtype=IDENTITY)


def read_identity(folder: Path, number: int) -> Any:
    """The identity of one example of a shard."""
    offset = number * IDENTITY.itemsize
    return np.fromfile(folder / IDENTITIES, dtype=IDENTITY, count=1, offset=offset)[0]


def count_identities(folder: Path) -> int:
    """How many examples a shard has."""
    return (folder / IDENTITIES).stat().st_size // IDENTITY.itemsize
