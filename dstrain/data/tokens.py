"""Token sets: token ids of examples on disk, made once, cached by content, read through memory maps.

A token set is a folder of flat arrays and a description. It is made of shards, which a kill does not cost, and joined under a
temporary name that is renamed when complete, so that a folder under its final name is always valid. Knows nothing of batches.
"""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dstrain.config.data import RULES_OF_ROWS, Source
from dstrain.data.arrays import Ids
from dstrain.data.bad_rows import BadRowLog
from dstrain.data.encoding import ReadingRules
from dstrain.data.examples import Example
from dstrain.data.hashes import hash_file
from dstrain.data.identity import IDENTITY, Identities
from dstrain.data.merge import OCCURRING, STARTS_EVERY, merge_shards
from dstrain.data.overlap import Places
from dstrain.data.shards import EXAMPLES, IDENTITIES, SIDES, Beat, id_type, make_shards, no_beat, write_shard
from dstrain.data.sources import HashFile, fingerprint_source
from dstrain.errors import UserError
from dstrain.run_folder.leftovers import last_change, remove_leftovers
from dstrain.run_folder.sealed import check_if_made, sealed_folder
from dstrain.tasks.own_task import code_fingerprint
from dstrain.tasks.parsing import as_typed

FORMAT_VERSION = 7
"""Increase it when the files change, or when tasks make other text of the same rows: older folders are then not used."""

DESCRIPTION = "token_set.json"
SHARDS = ".shards"
"""Suffix of the folder with the shards of a set that is being made, beside the place of the set."""

ABANDONED_SHARDS_SECONDS = 7 * 24 * 3600.0
"""Shards that no one has added to for so long are removed: their data or recipe were probably changed."""


class TokenSet:
    """Token ids of all rows of an epoch, memory-mapped from disk.

    num_rows counts a repeated row as often as it appears; source_lengths and target_lengths are int32 `[rows]` and include
    special tokens; fingerprint is a hash of the ids; report holds the counts for the card. typed holds the same rows with
    their sources as typed, where the references cut the sources of an evaluation set; else None. held_in_training are the
    rows of an evaluation set whose sources are in training, as far as that is known: whoever knows sets it.
    """

    def __init__(self, folder: Path, *, description: Mapping[str, Any], typed: "TokenSet | None" = None) -> None:
        self.folder = folder
        self.report: dict[str, Any] = description["report"]
        self.typed = typed
        self.held_in_training: frozenset[int] = frozenset()
        self.fingerprint: str = self.report["fingerprint"]
        self._source, self._target = (_map_side(folder, side=side, description=description) for side in SIDES)
        self.source_lengths, self.target_lengths = self._source.lengths, self._target.lengths
        self.num_rows = len(self.source_lengths)

    def source(self, row: int) -> Ids:
        """Ids of the source `[source]` of a row, with special tokens."""
        return self._source.ids_of(row)

    def target(self, row: int) -> Ids:
        """Ids of the target `[target]` of a row, with special tokens: the labels."""
        return self._target.ids_of(row)

    def occurring(self, side: str) -> Ids:
        """The ids that occur in the sources (`source`) or the targets (`target`), each once, ascending."""
        return np.fromfile(self.folder / f"{side}_{OCCURRING}", dtype="<i4")

    @property
    def places(self) -> Places:
        """Where the distinct rows are in the data."""
        names, num_rows = zip(*self.report["places"], strict=True)
        return Places(names, num_rows)

    def identities(self, *, chunk_rows: int = 1 << 20) -> Iterator[Identities]:
        """The identities of the distinct rows, in parts."""
        mapped = np.memmap(self.folder / IDENTITIES, IDENTITY, "r")
        for start in range(0, len(mapped), chunk_rows):
            yield np.array(mapped[start : start + chunk_rows])

    @cached_property
    def examples(self) -> list[Example]:
        """The texts of the rows in order; only evaluation sets keep them."""
        with (self.folder / EXAMPLES).open(encoding="utf-8", newline="\n") as file:
            return [_read_example(line) for line in file]

    @cached_property
    def cut_rows(self) -> list[int]:
        """The rows whose source was cut by means of the reference."""
        typed = [] if self.typed is None else self.typed.examples
        pairs = zip(self.examples, typed, strict=True) if typed else ()
        return [row for row, (cut, uncut) in enumerate(pairs) if cut.source != uncut.source]


def _read_example(line: str) -> Example:
    values = json.loads(line)
    return Example(**values | {"other_targets": tuple(values["other_targets"])})


@dataclass(frozen=True, slots=True)
class SetUp:
    """What helps to make a large token set. The defaults serve a small one."""

    hash_file: HashFile = hash_file
    beat: Beat = no_beat
    encode_elsewhere: Callable[[Path], Iterator[None]] | None = None
    """Makes the shards of a set in a folder, in other processes: see `make_shards`."""


def prepare_token_set(
    sources: Sequence[Source], *, reading: ReadingRules, cache_dir: Path, set_up: SetUp = SetUp()
) -> Path:
    """The folder of the sources' token set, made if it is not in the cache.

    Raises UserError if a source cannot be read or has no usable row, UnusableRowError where a rule is `error`.
    """
    fingerprints = [fingerprint_source(source, hash_file=set_up.hash_file) for source in sources]
    task, rules = reading.task, reading.rules
    settings = [
        task.model_dump(),
        rules.model_dump(include=set(RULES_OF_ROWS)),
        # evaluation rows are never left out because of others
        [hashlib.sha256(reading.held_out).hexdigest(), reading.split == "train" and rules.duplicates],
        reading.split == "eval",
        reading.encoder.fingerprint,
        FORMAT_VERSION,
        *code_fingerprint(task),
    ]
    key = hashlib.sha256(json.dumps([fingerprints, *settings]).encode()).hexdigest()
    folder = cache_dir / key[:32]
    check_if_made(folder)
    if not folder.exists():
        _build_from_shards(sources, reading=reading, folder=folder, source_fingerprints=fingerprints, set_up=set_up)
    if reading.split == "eval" and task.cuts_by_reference:
        _prepare_typed(folder, reading=reading)
    return folder


def _build_from_shards(
    sources: Sequence[Source],
    *,
    reading: ReadingRules,
    folder: Path,
    source_fingerprints: Sequence[str],
    set_up: SetUp,
) -> None:
    """Write the token set of the sources. A kill costs the shards that are not complete, no more."""
    shards = folder.with_name(f"{folder.name}{SHARDS}")
    _remove_leftovers(folder.parent, shards=shards)
    starts_every = 1 if any(source.repeat != 1 for source in sources) else STARTS_EVERY
    made = make_shards(
        sources, reading=reading, folder=shards, encode_elsewhere=set_up.encode_elsewhere, beat=set_up.beat
    )
    try:
        with closing(made), sealed_folder(folder) as draft:
            places = [source.place for source in sources]
            report = merge_shards(
                made, reading=reading, folder=draft, places=places, starts_every=starts_every, beat=set_up.beat
            )
            report["sources"] = list(source_fingerprints)
            _finish(draft, report=report, reading=reading, starts_every=starts_every)
    except (FileNotFoundError, UserError) as error:
        if not folder.exists():  # else another process was faster, and has removed the shards in the midst of this
            is_of_system = isinstance(error, FileNotFoundError) or isinstance(error.__cause__, OSError)
            if not is_of_system:  # data or recipe will be changed, and then the shards are of no use
                shutil.rmtree(shards, ignore_errors=True)
            raise
    shutil.rmtree(shards, ignore_errors=True)


def _remove_leftovers(cache_dir: Path, *, shards: Path) -> None:
    for each in (cache_dir, shards):
        remove_leftovers(each)
    for other in cache_dir.glob(f"*{SHARDS}"):
        if other != shards and time.time() - last_change(other) > ABANDONED_SHARDS_SECONDS:
            shutil.rmtree(other, ignore_errors=True)


def build_token_set(
    examples: Iterable[Example], *, reading: ReadingRules, folder: Path, log: BadRowLog | None = None
) -> None:
    """Write the token set of the examples to folder; log holds the rows lost while reading, and gets those lost here.

    Two processes may build the same folder at once: the first to finish wins. Raises UserError if no row is left,
    UnusableRowError where a rule is `error`.
    """
    with sealed_folder(folder) as draft:
        with tempfile.TemporaryDirectory(dir=draft) as shard:
            write_shard(examples, reading=reading, folder=Path(shard), log=log or BadRowLog())
            report = merge_shards([Path(shard)], reading=reading, folder=draft, starts_every=1)
        _finish(draft, report=report | {"sources": []}, reading=reading, starts_every=1)


def _finish(draft: Path, *, report: dict[str, Any], reading: ReadingRules, starts_every: int) -> None:
    description = {
        "format_version": FORMAT_VERSION,
        "files": {path.name: path.stat().st_size for path in sorted(draft.iterdir())},
        "id_type": id_type(reading),
        "starts_every": starts_every,
        "report": report,
    }
    (draft / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")


def load_token_set(folder: Path) -> TokenSet:
    """The token set in folder. Raises UserError if a file is missing or has not the size that was written."""
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    for name, size in description["files"].items():
        found = (folder / name).stat().st_size if (folder / name).exists() else None
        if found != size:
            raise UserError(
                f"{folder / name}: {size} bytes were written, found {found}: delete {folder} and start the run again"
            )
    typed = _typed_folder(folder)
    if not typed.is_dir():
        return TokenSet(folder, description=description)
    tokens = TokenSet(folder, description=description, typed=load_token_set(typed))
    tokens.report["cut_by_reference"] = len(tokens.cut_rows)
    return tokens


def _typed_folder(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-typed")


def _prepare_typed(folder: Path, *, reading: ReadingRules) -> None:
    """The token set of the same rows with their sources as typed, beside `folder`; made if it is not in the cache."""
    typed = _typed_folder(folder)
    check_if_made(typed)
    if typed.exists():
        return
    examples = (
        replace(example, source=example.source_prefix + as_typed(example.raw_source))
        for example in load_token_set(folder).examples
    )
    # every row of the other set must be here, under the same number
    rules = reading.rules.model_copy(update={"too_long": "truncate", "unknown_token": "keep"})
    build_token_set(examples, reading=replace(reading, rules=rules), folder=typed)


@dataclass(frozen=True, slots=True)
class _Side:
    """The files of one side."""

    ids: npt.NDArray[Any]
    starts: npt.NDArray[np.int64]
    """Where the ids of every `starts_every`-th row start."""
    lengths: Ids
    starts_every: int

    def ids_of(self, row: int) -> Ids:
        """The ids of a row."""
        known = row - row % self.starts_every
        # the rows from the last one whose start is stored follow each other in `ids`
        start = int(self.starts[row // self.starts_every]) + int(np.add.reduce(self.lengths[known:row]))
        return self.ids[start : start + int(self.lengths[row])].astype(np.int32, copy=False)


def _map_side(folder: Path, *, side: str, description: Mapping[str, Any]) -> _Side:
    parts = (("ids", description["id_type"]), ("starts", "<i8"), ("lengths", "<i4"))
    # plain views, because slicing a memmap object takes many times longer than slicing an array
    ids, starts, lengths = (np.asarray(np.memmap(folder / f"{side}_{name}.bin", dtype, "r")) for name, dtype in parts)
    return _Side(ids, starts, lengths, description["starts_every"])
