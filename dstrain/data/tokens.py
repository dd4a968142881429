"""Examples in, token ids on disk out: made once, kept by content, read through memory maps.

A token set is a folder of flat arrays and a description. It appears whole or not at all: it is written beside its place
and renamed into it. Knows nothing of batches; the tokenizer enters as an `Encoder`.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dstrain.config.recipe import Rules, Source, Task
from dstrain.data.bad_rows import BadRowLog, apply_rule
from dstrain.data.examples import Example, build_examples
from dstrain.data.sources import fingerprint_source, read_rows
from dstrain.errors import UserError

FORMAT_VERSION = 2
"""Raise it when the files change, or when tasks make other text of the same rows: older folders are then left alone."""

BATCH_EXAMPLES = 2000
"""Examples tokenised together."""

DESCRIPTION = "token_set.json"
BAD_ROWS = "bad_rows.jsonl"
EXAMPLES = "examples.jsonl"

Ids = npt.NDArray[np.int32]


class Encoder(Protocol):
    """What a tokenizer must do to make a token set."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the ids."""

    @property
    def unk_token_id(self) -> int | None:
        """The id of text that the vocabulary does not cover."""

    def encode(
        self,
        sources: list[str],
        targets: list[str],
        *,
        source_language: str | None,
        target_language: str | None,
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Ids of both sides with their special tokens, at full length."""

    def truncate(self, ids: list[int], *, max_tokens: int) -> list[int]:
        """The first ids, max_tokens in all, with the special tokens of both ends."""


class TokenSet:
    """Token ids of all rows of an epoch, mapped from disk.

    num_rows counts a repeated row as often as it appears; source_lengths and target_lengths are int32 `[rows]`, in
    tokens with special tokens; fingerprint is a hash of the ids; report holds the counts for the card.
    """

    def __init__(self, folder: Path, *, report: dict[str, Any]) -> None:
        self.folder = folder
        self.report = report
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
        """The texts of the rows, in their order; only evaluation sets keep them."""
        with (self.folder / EXAMPLES).open(encoding="utf-8", newline="\n") as file:
            return [Example(**json.loads(line)) for line in file]


def prepare_token_set(
    sources: Sequence[Source], *, task: Task, rules: Rules, encoder: Encoder, cache_dir: Path, for_evaluation: bool
) -> Path:
    """The folder of the token set of the sources, made if it is not in the cache. rules.unknown_token must be resolved.

    Raises UserError if a source cannot be read or nothing usable is in it, UnusableRowError where a rule is `error`.
    """
    fingerprints = [fingerprint_source(source) for source in sources]
    settings = [task.model_dump(), rules.model_dump(), for_evaluation, encoder.fingerprint, FORMAT_VERSION]
    key = hashlib.sha256(json.dumps([fingerprints, *settings]).encode()).hexdigest()
    folder = cache_dir / key[:32]
    if not folder.exists():
        log = BadRowLog()
        rows = read_rows(sources, task=task, rules=rules, on_bad=log)
        build_token_set(
            build_examples(rows, task=task, rules=rules, on_bad=log),
            encoder=encoder,
            task=task,
            rules=rules,
            folder=folder,
            for_evaluation=for_evaluation,
            log=log,
            source_fingerprints=fingerprints,
        )
    return folder


def build_token_set(
    examples: Iterable[Example],
    *,
    encoder: Encoder,
    task: Task,
    rules: Rules,
    folder: Path,
    for_evaluation: bool,
    log: BadRowLog | None = None,
    source_fingerprints: Sequence[str] = (),
) -> None:
    """Write the token set of the examples to folder; log has the rows lost before and takes up those lost here.

    source_fingerprints go into the report, so that a later change can be traced to its source.

    Two processes may do so at once: the first to finish stays. Raises UserError if no row is left, UnusableRowError
    where a rule is `error`.
    """
    log = log or BadRowLog()
    temporary = folder.with_name(f"{folder.name}.tmp-{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        with _Writer(temporary, keep_examples=for_evaluation) as writer:
            for kept in fit_examples(
                examples, encoder=encoder, task=task, rules=rules, for_evaluation=for_evaluation, log=log
            ):
                writer.add(kept)
        log.save(temporary / BAD_ROWS)
        report = _build_report(writer, log=log) | {"sources": list(source_fingerprints)}
        if report["rows"] == 0:
            raise UserError(
                f"data.{'eval' if for_evaluation else 'train'} has no usable row: {report['rows_read']} were read, "
                f"skipped by reason: {report['skipped']}. Correct the data or its columns, or change data.rules"
            )
        _commit(temporary, folder=folder, report=report)
    finally:
        # Empty-handed after a commit; after a failure, nothing of a half-written set stays.
        shutil.rmtree(temporary, ignore_errors=True)


def fit_examples(
    examples: Iterable[Example], *, encoder: Encoder, task: Task, rules: Rules, for_evaluation: bool, log: BadRowLog
) -> Iterator[list["Encoded"]]:
    """The examples that are kept, encoded and cut to the task's limits, in their order, some thousand at a time.

    Raises UnusableRowError where a rule is `error`.
    """
    for batch in _batches(examples):
        fitted = (
            _fit(item, encoder=encoder, task=task, rules=rules, for_evaluation=for_evaluation, log=log)
            for item in _encode(batch, encoder=encoder)
        )
        yield [item for item in fitted if item is not None]


def load_token_set(folder: Path) -> TokenSet:
    """The token set in folder. Raises UserError if its files are not those that were written."""
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    for name, size in description["files"].items():
        found = (folder / name).stat().st_size if (folder / name).exists() else None
        if found != size:
            raise UserError(
                f"{folder / name}: {size} bytes were written, found {found}: delete {folder} and start again"
            )
    return TokenSet(folder, report=description["report"])


@dataclass(slots=True)
class Encoded:
    """An example with the ids of both its sides."""

    example: Example
    source_ids: list[int]
    target_ids: list[int]


class _Side:
    """One side's flat files: all ids, and for every row of an epoch where its ids start and how many they are."""

    def __init__(self, folder: Path, *, side: str) -> None:
        self._files = {part: (folder / f"{side}_{part}.bin").open("wb") for part in ("ids", "starts", "lengths")}
        self._digests = [hashlib.sha256(), hashlib.sha256()]
        self._num_ids = 0
        self.num_tokens = 0

    def add(self, examples: Sequence[list[int]], *, repeats: Sequence[int]) -> None:
        """Append the ids of some examples; a repeated one is stored once and pointed at several times."""
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
        """Hash of the ids and of how they are divided into rows."""
        return b"".join(digest.digest() for digest in self._digests)

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


class _Writer:
    """Writes the files of a token set, in the order in which examples come."""

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
        """Hash of all ids in their order."""
        return hashlib.sha256(self.source.digest() + self.target.digest()).hexdigest()


def _batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    iterator = iter(examples)
    while batch := list(islice(iterator, BATCH_EXAMPLES)):
        yield batch


def _encode(batch: Sequence[Example], *, encoder: Encoder) -> list[Encoded]:
    by_languages: dict[tuple[str | None, str | None], list[int]] = {}
    for place, example in enumerate(batch):
        by_languages.setdefault((example.source_language, example.target_language), []).append(place)
    encoded: dict[int, Encoded] = {}
    for (source_language, target_language), places in by_languages.items():
        source_ids, target_ids = encoder.encode(
            [batch[place].source for place in places],
            [batch[place].target for place in places],
            source_language=source_language,
            target_language=target_language,
        )
        for place, source, target in zip(places, source_ids, target_ids, strict=True):
            encoded[place] = Encoded(batch[place], source, target)
    return [encoded[place] for place in range(len(batch))]


def _fit(
    item: Encoded, *, encoder: Encoder, task: Task, rules: Rules, for_evaluation: bool, log: BadRowLog
) -> Encoded | None:
    example = item.example
    if encoder.unk_token_id is not None and encoder.unk_token_id in item.target_ids:
        assert rules.unknown_token is not None, "the task's default must be filled in before"
        problem = f"the target has characters that the vocabulary lacks (they become token {encoder.unk_token_id})"
        rule, text = rules.unknown_token, example.target
        apply_rule(rule, where=example.where, reason="unknown_token", problem=problem, text=text, on_bad=log)
        if rule == "skip":
            return None
    source_over = len(item.source_ids) > task.max_source_tokens
    target_over = len(item.target_ids) > task.max_target_tokens
    if source_over or target_over:
        # A cut reference would be another reference, and the score a lie.
        keep_target = for_evaluation and rules.too_long == "truncate"
        action = "keep" if keep_target and not source_over else rules.too_long
        problem = (
            f"{len(item.source_ids)} source tokens of at most {task.max_source_tokens}, "
            f"{len(item.target_ids)} target tokens of at most {task.max_target_tokens}"
        )
        text = example.source if source_over else example.target
        apply_rule(action, where=example.where, reason="too_long", problem=problem, text=text, on_bad=log)
        if action == "skip":
            return None
        if source_over:
            item.source_ids = encoder.truncate(item.source_ids, max_tokens=task.max_source_tokens)
        if target_over and not keep_target:
            item.target_ids = encoder.truncate(item.target_ids, max_tokens=task.max_target_tokens)
    return item


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


def _commit(temporary: Path, *, folder: Path, report: dict[str, Any]) -> None:
    files = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
    description = {"format_version": FORMAT_VERSION, "files": files, "report": report}
    (temporary / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")
    # A rename may reach the disk before the files do: without these a power cut leaves an empty set under a good name.
    for path in (*temporary.iterdir(), temporary):
        _sync(path)
    try:
        temporary.rename(folder)
    except OSError:
        # Another process was faster: its set has the same key, so the same content.
        if not (folder / DESCRIPTION).exists():
            raise
    _sync(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _map_side(folder: Path, *, side: str) -> tuple[Ids, npt.NDArray[np.int64], Ids]:
    parts = (("ids", "<i4"), ("starts", "<i8"), ("lengths", "<i4"))
    # Plain views, because slicing a memmap object costs many times what slicing an array does.
    ids, starts, lengths = (np.asarray(np.memmap(folder / f"{side}_{name}.bin", dtype, "r")) for name, dtype in parts)
    return ids, starts, lengths
