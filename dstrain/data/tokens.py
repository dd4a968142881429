"""Token sets: token ids of examples on disk, made once, cached by content, read through memory maps.

A token set is a folder of flat arrays and a description. It is written under a temporary name and renamed when complete, so
that a folder under its final name is always valid. Knows nothing of batches.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dstrain.config.recipe import Source
from dstrain.data.arrays import Ids
from dstrain.data.bad_rows import BadRowLog
from dstrain.data.counts import Counts
from dstrain.data.encoding import Encoded, ReadingRules, encode_examples
from dstrain.data.examples import Example, build_examples
from dstrain.data.source_counts import SourceCounts
from dstrain.data.sources import fingerprint_source, read_rows
from dstrain.errors import UserError
from dstrain.run_folder.atomic import shared_folder
from dstrain.tasks.parsing import as_typed

FORMAT_VERSION = 4
"""Increase it when the files change, or when tasks make other text of the same rows: older folders are then not used."""

DESCRIPTION = "token_set.json"
BAD_ROWS = "bad_rows.jsonl"
EXAMPLES = "examples.jsonl"


class TokenSet:
    """Token ids of all rows of an epoch, memory-mapped from disk.

    num_rows counts a repeated row as often as it appears; source_lengths and target_lengths are int32 `[rows]` and include
    special tokens; fingerprint is a hash of the ids; report holds the counts for the card. typed holds the same rows with
    their sources as typed, where the references cut the sources of an evaluation set; else None.
    """

    def __init__(self, folder: Path, *, report: dict[str, Any], typed: "TokenSet | None" = None) -> None:
        self.folder = folder
        self.report = report
        self.typed = typed
        self.fingerprint: str = report["fingerprint"]
        self._source_ids, self._source_starts, self.source_lengths = _map_side(folder, side="source")
        self._target_ids, self._target_starts, self.target_lengths = _map_side(folder, side="target")
        self.num_rows = len(self.source_lengths)

    def source(self, row: int) -> Ids:
        """Ids of the source `[source]` of a row, with special tokens."""
        start = int(self._source_starts[row])
        return self._source_ids[start : start + int(self.source_lengths[row])]

    def target(self, row: int) -> Ids:
        """Ids of the target `[target]` of a row, with special tokens: the labels."""
        start = int(self._target_starts[row])
        return self._target_ids[start : start + int(self.target_lengths[row])]

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


def prepare_token_set(sources: Sequence[Source], *, reading: ReadingRules, cache_dir: Path) -> Path:
    """The folder of the sources' token set, made if it is not in the cache.

    Raises UserError if a source cannot be read or has no usable row, UnusableRowError where a rule is `error`.
    """
    fingerprints = [fingerprint_source(source) for source in sources]
    task, rules = reading.task, reading.rules
    settings = [
        task.model_dump(),
        rules.model_dump(),
        reading.split == "eval",
        reading.encoder.fingerprint,
        FORMAT_VERSION,
    ]
    key = hashlib.sha256(json.dumps([fingerprints, *settings]).encode()).hexdigest()
    folder = cache_dir / key[:32]
    if not folder.exists():
        log = BadRowLog()
        rows = read_rows(sources, task=task, rules=rules, on_bad=log, has_references=reading.split == "eval")
        build_token_set(
            build_examples(rows, task=task, rules=rules, on_bad=log),
            reading=reading,
            folder=folder,
            log=log,
            sources=[(source.place, fingerprint) for source, fingerprint in zip(sources, fingerprints, strict=True)],
        )
    if reading.split == "eval" and task.cuts_by_reference:
        _prepare_typed(folder, reading=reading)
    return folder


def build_token_set(
    examples: Iterable[Example],
    *,
    reading: ReadingRules,
    folder: Path,
    log: BadRowLog | None = None,
    sources: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the token set of the examples to folder; log holds the rows lost while reading, and gets those lost here.

    sources are the places and the fingerprints of the data sources; the latter go into the report, so that a later change can
    be traced to its source. Two processes may build the same folder at once: the first to finish wins. Raises UserError if
    no row of a source is left, UnusableRowError where a rule is `error`.
    """
    log = log or BadRowLog()
    with shared_folder(folder) as draft:
        counts, of_sources = Counts(), SourceCounts()
        with _Writer(draft, keep_examples=reading.split == "eval") as writer:
            for encoded in encode_examples(examples, reading=reading, on_bad=log):
                writer.add(encoded)
                for item in encoded:
                    counts.add(item, reading=reading)
                    of_sources.add(item.example)
        log.save(draft / BAD_ROWS)
        counts.check_limits(reading=reading)
        report = _build_report(writer, log=log) | counts.report()
        report["sources"] = [fingerprint for _, fingerprint in sources]
        report["by_source"] = of_sources.report([place for place, _ in sources] or [""], log=log, split=reading.split)
        _write_description(draft, report=report)


def load_token_set(folder: Path) -> TokenSet:
    """The token set in folder. Raises UserError if a file is missing or has not the size that was written."""
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    for name, size in description["files"].items():
        found = (folder / name).stat().st_size if (folder / name).exists() else None
        if found != size:
            raise UserError(
                f"{folder / name}: {size} bytes were written, found {found}: delete {folder} and start the run again"
            )
    report, typed = description["report"], _typed_folder(folder)
    if not typed.is_dir():
        return TokenSet(folder, report=report)
    tokens = TokenSet(folder, report=report, typed=load_token_set(typed))
    report["cut_by_reference"] = len(tokens.cut_rows)
    return tokens


def _typed_folder(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-typed")


def _prepare_typed(folder: Path, *, reading: ReadingRules) -> None:
    """The token set of the same rows with their sources as typed, beside `folder`; made if it is not in the cache."""
    typed = _typed_folder(folder)
    if typed.exists():
        return
    examples = (
        replace(example, source=example.source_prefix + as_typed(example.raw_source))
        for example in load_token_set(folder).examples
    )
    # every row of the other set must be here, under the same number
    rules = reading.rules.model_copy(update={"too_long": "truncate", "unknown_token": "keep"})
    build_token_set(examples, reading=replace(reading, rules=rules), folder=typed)


class _Side:
    """One side's flat files: all ids, and for every row of an epoch where its ids start and how many there are."""

    def __init__(self, folder: Path, *, side: str) -> None:
        self._files = {part: (folder / f"{side}_{part}.bin").open("wb") for part in ("ids", "starts", "lengths")}
        self._digests = [hashlib.sha256(), hashlib.sha256()]
        self._num_ids = 0
        self.num_tokens = 0

    def add(self, examples: Sequence[list[int]], *, repeats: Sequence[int]) -> None:
        """Append the ids of some examples; a repeated example is stored once and referenced several times."""
        ids = np.fromiter(chain.from_iterable(examples), dtype="<i4")
        lengths = np.asarray([len(example) for example in examples], dtype="<i4")
        starts = self._num_ids + np.cumsum(lengths, dtype="<i8") - lengths
        row_lengths = np.repeat(lengths, repeats)
        self._files["ids"].write(ids.tobytes())
        self._files["starts"].write(np.repeat(starts, repeats).tobytes())
        self._files["lengths"].write(row_lengths.tobytes())
        self._digests[0].update(ids.tobytes())
        self._digests[1].update(row_lengths.tobytes())
        self._num_ids += len(ids)
        self.num_tokens += int(row_lengths.sum(dtype=np.int64))

    def digest(self) -> bytes:
        """Hash of the ids and of their division into rows."""
        return b"".join(digest.digest() for digest in self._digests)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


class _Writer:
    """Writes the files of a token set, in the order of the examples."""

    def __init__(self, folder: Path, *, keep_examples: bool) -> None:
        self.source = _Side(folder, side="source")
        self.target = _Side(folder, side="target")
        self.num_examples = 0
        self.num_rows = 0
        self._examples = (folder / EXAMPLES).open("w", encoding="utf-8", newline="\n") if keep_examples else None

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.source.close()
        self.target.close()
        if self._examples is not None:
            self._examples.close()

    def add(self, items: Sequence[Encoded]) -> None:
        """Append some examples."""
        repeats = [item.example.repeat for item in items]
        self.source.add([item.source_ids for item in items], repeats=repeats)
        self.target.add([item.target_ids for item in items], repeats=repeats)
        self.num_examples += len(items)
        self.num_rows += sum(repeats)
        if self._examples is not None:
            self._examples.writelines(json.dumps(asdict(item.example), ensure_ascii=False) + "\n" for item in items)

    def fingerprint(self) -> str:
        """Hash of all ids in order."""
        return hashlib.sha256(self.source.digest() + self.target.digest()).hexdigest()


def _build_report(writer: _Writer, *, log: BadRowLog) -> dict[str, Any]:
    skipped, kept = log.count("skip"), log.count("keep")
    return {
        "rows_read": writer.num_examples + sum(skipped.values()),
        "distinct_rows": writer.num_examples,
        "rows": writer.num_rows,
        "skipped": skipped,
        "truncated": log.count("truncate").get("too_long", 0),
        "kept_with_unknown": kept.get("unknown_token", 0),
        "kept_too_long": kept.get("too_long", 0),
        "source_tokens": writer.source.num_tokens,
        "target_tokens": writer.target.num_tokens,
        "fingerprint": writer.fingerprint(),
    }


def _write_description(folder: Path, *, report: dict[str, Any]) -> None:
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    description = {"format_version": FORMAT_VERSION, "files": files, "report": report}
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")


def _map_side(folder: Path, *, side: str) -> tuple[Ids, npt.NDArray[np.int64], Ids]:
    parts = (("ids", "<i4"), ("starts", "<i8"), ("lengths", "<i4"))
    # plain views, because slicing a memmap object takes many times longer than slicing an array
    ids, starts, lengths = (np.asarray(np.memmap(folder / f"{side}_{name}.bin", dtype, "r")) for name, dtype in parts)
    return ids, starts, lengths
