"""Reads rows from files, datasets of the Hugging Face hub and the built-in demo data.

A row has its texts, its languages and its location (`file:line`). Knows nothing of tokens, nor of a task's forms.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dstrain.config.recipe import Rules, Source, Task
from dstrain.data.bad_rows import OnBad, apply_rule
from dstrain.data.formats import (
    READERS,
    Broken,
    Column,
    Record,
    Records,
    check_names,
    pick_cells,
    read_aligned,
    top_level_names,
)
from dstrain.errors import UserError
from dstrain.tasks.demo.rows import GENERATOR_VERSION, demo_rows
from dstrain.tasks.translation import Languages, choose_languages


@dataclass(frozen=True, slots=True)
class Row:
    """One pair of texts as it is in the data. repeat is how often it appears in an epoch."""

    source: str
    target: str
    source_language: str | None
    target_language: str | None
    group: str | None
    where: str
    repeat: int = 1
    source_prefix: str | None = None
    """What the model reads before the source; None if that is the task's prefix."""


def read_rows(sources: Sequence[Source], *, task: Task, rules: Rules, on_bad: OnBad) -> Iterator[Row]:
    """The usable rows of all sources, in order; each row once, whatever its repeat.

    Raises UserError if a source cannot be read or has no such column, UnusableRowError where a rule is `error`.
    """
    for source in sources:
        languages = choose_languages(task, source=source.source_language, target=source.target_language)
        for record in islice(_read_records(source), source.max_rows):
            row = _build_row(record, source, languages=languages, rules=rules, on_bad=on_bad)
            if row is not None:
                yield row


def fingerprint_sources(sources: Sequence[Source]) -> str:
    """Hash of the sources' content and of how it is read; names of local files do not matter.

    Raises UserError if a source cannot be read.
    """
    return hashlib.sha256("".join(map(fingerprint_source, sources)).encode()).hexdigest()


def fingerprint_source(source: Source) -> str:
    """Hash of one source's content and of how it is read; names of local files do not matter.

    Raises UserError if it cannot be read.
    """
    # without a prefix of its own the hash is that of versions that knew none
    ignored = {"path", "target_path"} | ({"source_prefix"} if source.source_prefix is None else set())
    part = [_hash_content(source), source.model_dump(exclude=ignored)]
    return hashlib.sha256(json.dumps(part).encode()).hexdigest()


def _read_records(source: Source) -> Records:
    if source.hub is not None:
        return _read_hub(source)
    if source.demo is not None:
        return _read_demo(source)
    path, *target_path = _local_paths(source)
    if target_path:
        if source.group_column is not None:
            raise UserError(
                f"{path}: group_column is `{source.group_column}`, but aligned text files have no columns: leave it out"
            )
        return read_aligned(path, target_path[0])
    file_format = source.format or path.suffix.removeprefix(".").lower()
    if file_format not in READERS:
        raise UserError(f"{path}: the suffix does not say the format: set `format` to one of {', '.join(READERS)}")
    return READERS[file_format](path, _columns(source))


def _columns(source: Source) -> list[Column]:
    group = [] if source.group_column is None else [source.group_column]
    return [source.source_column, source.target_column, *group]


def _local_paths(source: Source) -> list[Path]:
    paths = [Path(path) for path in (source.path, source.target_path) if path is not None]
    for path in paths:
        if not os.path.isfile(path):  # Path.is_file raises for a name that no file can have
            raise UserError(f"data source `{path}` is not a file (looked in {Path.cwd()}): correct `path`")
    return paths


def _build_row(
    record: Record | Broken, source: Source, *, languages: Languages, rules: Rules, on_bad: OnBad
) -> Row | None:
    record = _check_types(record)
    if isinstance(record, Broken):
        apply_rule(
            rules.undecodable,
            where=record.where,
            reason="undecodable",
            problem=record.problem,
            text=record.text,
            on_bad=on_bad,
        )
        return None
    source_text, target_text, *group = record.cells
    if not (source_text.strip() and target_text.strip()):
        problem, text = f"the {'target' if source_text.strip() else 'source'} is empty", f"{source_text}\t{target_text}"
        apply_rule(rules.empty, where=record.where, reason="empty", problem=problem, text=text, on_bad=on_bad)
        return None
    return Row(
        source=source_text,
        target=target_text,
        source_language=languages.source,
        target_language=languages.target,
        group=str(group[0]) if group and group[0] is not None else None,
        where=record.where,
        repeat=source.repeat,
        source_prefix=source.source_prefix,
    )


def _check_types(record: Record | Broken) -> Record | Broken:
    if isinstance(record, Broken):
        return record
    # Parquet and JSON write a missing text as null
    texts = tuple("" if cell is None else cell for cell in record.cells[:2])
    for text in texts:
        if not isinstance(text, str):
            return Broken(record.where, f"a value of type `{type(text).__name__}` instead of text", text=str(text))
    return Record(record.where, texts + record.cells[2:])


def _load_hub(source: Source) -> Any:
    import datasets  # takes seconds, and most recipes read files

    try:
        return datasets.load_dataset(source.hub, source.subset, split=source.split, revision=source.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        if datasets.config.HF_HUB_OFFLINE:
            raise UserError(
                f"data source hub `{source.hub}` is not in the local cache, and there is no network or HF_HUB_OFFLINE=1 "
                f"forbids it: run once with the network, or name local files with `path` ({error})"
            ) from error
        raise UserError(
            f"data source hub `{source.hub}` (subset `{source.subset}`, split `{source.split}`, revision "
            f"`{source.revision}`) cannot be loaded: {error}"
        ) from error


def _read_hub(source: Source) -> Records:
    place = f"{source.hub}/{source.split}"
    names = check_names(_columns(source), where=place)
    dataset = _load_hub(source)
    wanted = dataset.select_columns(top_level_names(names, available=dataset.column_names, where=place))
    for index, record in enumerate(wanted):
        yield pick_cells(record, names, where=f"{place}:{index}")


def _read_demo(source: Source) -> Records:
    assert source.demo is not None
    for index, row in enumerate(demo_rows(source.demo, split=source.split)):
        yield Record(f"demo/{source.demo}/{source.split}:{index}", (row.source, row.target, row.group))


def _hash_content(source: Source) -> list[str]:
    if source.hub is not None:
        # `datasets` computes it from the commit, the subset and the split, but has no public name for it
        return [_load_hub(source)._fingerprint]
    if source.demo is not None:
        return [str(GENERATOR_VERSION)]
    hashes = []
    for path in _local_paths(source):
        with path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    return hashes
