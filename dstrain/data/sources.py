"""Reads rows from files, datasets of the Hugging Face hub and the built-in demo data.

A row has its texts, its languages and its location (`file:line`). Knows nothing of tokens, nor of a task's forms.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dstrain.config.data import Rules, Source
from dstrain.config.recipe import Task
from dstrain.config.spelling import format_suffix
from dstrain.data.bad_rows import OnBad, apply_rule, of_source
from dstrain.data.formats import READERS, read_aligned
from dstrain.data.hashes import BLOCK_BYTES, hash_file
from dstrain.data.lines import COMPRESSIONS
from dstrain.data.records import (
    LONE_SURROGATE,
    NO_COLUMN,
    UNREADABLE,
    Broken,
    Column,
    Record,
    Records,
    check_names,
    pick_cells,
    top_level_names,
)
from dstrain.data.tables import read_tsv
from dstrain.data.visible import has_visible_text
from dstrain.errors import UserError
from dstrain.tasks.demo.rows import GENERATOR_VERSION, demo_rows
from dstrain.tasks.translation import Languages, choose_languages

NEWER = ("quoted", "name", "source_prefix", "source_language_column", "target_language_column")
"""Keys of a source that not every version had: where they are null, the fingerprint is as before, so that runs resume."""


SourcedRecord = tuple[int, Source, Record | Broken]

HashFile = Callable[[Path], str]
"""Gives a hash of a file's content."""


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
    eval_set: str | None = None
    """Name of its evaluation set."""
    other_targets: tuple[str, ...] = ()
    """Further references of an evaluation row."""
    source_prefix: str | None = None
    """What the model reads before the source; None if that is the task's prefix."""
    data_source: int = 0
    """Number of its data source."""


def read_rows(
    sources: Sequence[Source], *, task: Task, rules: Rules, on_bad: OnBad, has_references: bool = False
) -> Iterator[Row]:
    """The usable rows of all sources, in order; each row once, whatever its repeat.

    Rows with references may have several targets: evaluation rows.

    Raises UserError if a source cannot be read or has no such column, UnusableRowError where a rule is `error`.
    """
    records = read_records(sources)
    return build_rows(records, task=task, rules=rules, on_bad=on_bad, has_references=has_references)


def read_records(sources: Iterable[Source]) -> Iterator[SourcedRecord]:
    """All records of the sources in order, each with its source and that one's number.

    Raises UserError if a source cannot be read.
    """
    for number, source in enumerate(sources):
        for record in islice(_read_records(source), source.max_rows):
            yield number, source, record


def build_rows(
    records: Iterable[SourcedRecord], *, task: Task, rules: Rules, on_bad: OnBad, has_references: bool = False
) -> Iterator[Row]:
    """The rows of usable records, in order. Arguments and errors are those of `read_rows`."""
    last = None
    for number, source, record in records:
        if number != last:
            languages = choose_languages(task, source=source.source_language, target=source.target_language)
            last = number
        checked = _check_types(record, has_references=has_references)
        row = _build_row(checked, source, number=number, languages=languages, rules=rules, on_bad=on_bad)
        if row is not None:
            yield row


def fingerprint_sources(sources: Sequence[Source], *, hash_file: HashFile = hash_file) -> str:
    """Hash of the sources' content and of how it is read; names of local files do not matter.

    Raises UserError if a source cannot be read.
    """
    fingerprints = (fingerprint_source(source, hash_file=hash_file) for source in sources)
    return hashlib.sha256("".join(fingerprints).encode()).hexdigest()


def fingerprint_source(source: Source, *, hash_file: HashFile = hash_file) -> str:
    """Hash of one source's content and of how it is read; names of local files do not matter.

    Raises UserError if it cannot be read.
    """
    how = source.model_dump(exclude={"path", "target_path", "weight"})
    part = [
        _hash_content(source, hash_file=hash_file),
        {key: value for key, value in how.items() if key not in NEWER or value is not None},
    ]
    return hashlib.sha256(json.dumps(part).encode()).hexdigest()


def estimate_records(sources: Iterable[Source], *, beat: Callable[[], None] = lambda: None) -> int | None:
    """About how many records the sources have, by counting lines; None if that would take as long as reading them."""
    counts = [_estimate(source, beat=beat) for source in sources]
    return None if None in counts else sum(count for count in counts if count is not None)


def _estimate(source: Source, *, beat: Callable[[], None]) -> int | None:
    if source.path is None:
        return None
    path, *_ = _local_paths(source)
    if (source.format or format_suffix(path)) == "parquet":
        import pyarrow.parquet  # large, and needed for Parquet only

        number: int = pyarrow.parquet.read_metadata(path).num_rows
    elif path.suffix.lower() in COMPRESSIONS:
        return None
    else:
        with path.open("rb", buffering=0) as file:
            number = 0
            while block := file.read(BLOCK_BYTES):
                number += block.count(b"\n")
                beat()
    return number if source.max_rows is None else min(number, source.max_rows)


def check_first_record(source: Source, *, key: str) -> None:
    """Read the first record of a local file that is not blank; `key` of the recipe names the source.

    Raises:
        UserError: the file cannot be read as the source says, lacks one of its columns, or has no row.
    """
    if source.path is None:
        return
    try:
        first = next((each for each in islice(_read_records(source), source.max_rows) if not _is_blank(each)), None)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    if first is None:
        below = f" in its first {source.max_rows:,} rows" if source.max_rows is not None else ""
        raise UserError(f"{key}: {source.path} has no row{below}: it is empty, or all of it is blank; give it rows")
    if isinstance(first, Broken) and first.problem.startswith(NO_COLUMN):
        raise UserError(f"{key}: {first.where}: {first.problem}")


def _is_blank(record: Record | Broken) -> bool:
    """Whether a record has nothing but white space."""
    if isinstance(record, Broken) and record.problem.startswith(UNREADABLE):
        return False
    cells = [record.text] if isinstance(record, Broken) else record.cells
    return all(cell is None or (isinstance(cell, str) and not cell.strip()) for cell in cells)


def _read_records(source: Source) -> Records:
    if source.hub is not None:
        return _read_hub(source)
    if source.demo is not None:
        return _read_demo(source)
    path, *target_paths = _local_paths(source)
    if target_paths:
        for key, column in source.further_columns.items():
            raise UserError(f"{path}: {key} is `{column}`, but aligned text files have no columns: leave it out")
        return _read_references(path, target_paths) if target_paths[1:] else read_aligned(path, target_paths[0])
    file_format = source.format or format_suffix(path)
    if file_format not in READERS:
        raise UserError(f"{path}: the suffix does not say the format: set `format` to one of {', '.join(READERS)}")
    if file_format == "tsv":
        return read_tsv(path, _columns(source), quoted=source.quoted)
    if source.quoted is not None:
        raise UserError(f"{path}: `quoted` is for TSV files, this one is read as {file_format}: leave it out")
    return READERS[file_format](path, _columns(source))


def _read_references(path: Path, target_paths: Sequence[Path]) -> Records:
    """Line n of one file with the list of lines n of the others."""
    for pairs in zip(*(read_aligned(path, target_path) for target_path in target_paths), strict=True):
        records = [pair for pair in pairs if isinstance(pair, Record)]
        broken = next((pair for pair in pairs if isinstance(pair, Broken)), None)
        yield broken or Record(records[0].where, (records[0].cells[0], [record.cells[1] for record in records]))


def _columns(source: Source) -> list[Column]:
    return [source.source_column, source.target_column, *source.further_columns.values()]


def _local_paths(source: Source) -> list[Path]:
    paths = [Path(path) for path in (source.path, *source.target_paths) if path is not None]
    for path in paths:
        if not os.path.isfile(path):  # Path.is_file raises for a name that no file can have
            raise UserError(f"data source `{path}` {_why_no_file(path)}")
    return paths


def _why_no_file(path: Path) -> str:
    if os.path.isdir(path):
        return "is not a file but a folder: name a file; each file is a source of its own"
    if set("*?[") & set(str(path)):
        return (
            f"is not a file (looked in {Path.cwd()}), and patterns are not expanded: each file is a source of its own"
        )
    return f"is not a file (looked in {Path.cwd()}): correct `path`"


def _build_row(
    record: Record | Broken, source: Source, *, number: int, languages: Languages, rules: Rules, on_bad: OnBad
) -> Row | None:
    on_bad = of_source(on_bad, number)
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
    source_text, (target_text, *other_targets), *cells = record.cells
    keys = ("group_column",) if source.demo is not None else tuple(source.further_columns)
    further = {key: str(cell) for key, cell in zip(keys, cells, strict=False) if cell is not None}
    if not (has_visible_text(source_text) and has_visible_text(target_text)):
        side = "target" if has_visible_text(source_text) else "source"
        problem, text = f"the {side} is empty or has nothing visible", f"{source_text}\t{target_text}"
        apply_rule(rules.empty, where=record.where, reason="empty", problem=problem, text=text, on_bad=on_bad)
        return None
    spoken = Languages(
        further.get("source_language_column", "").strip() or languages.source,
        further.get("target_language_column", "").strip() or languages.target,
    )
    for key, language in (("source_language_column", spoken.source), ("target_language_column", spoken.target)):
        if key in source.further_columns and language is None:
            problem = f"no language in the column `{source.further_columns[key]}` ({key}), and the recipe names none"
            apply_rule(
                rules.undecodable,
                where=record.where,
                reason="undecodable",
                problem=problem,
                text=target_text,
                on_bad=on_bad,
            )
            return None
    return Row(
        source=source_text,
        target=target_text,
        source_language=spoken.source,
        target_language=spoken.target,
        group=further.get("group_column"),
        where=record.where,
        repeat=source.repeat,
        eval_set=source.name,
        other_targets=tuple(other_targets),
        source_prefix=source.source_prefix,
        data_source=number,
    )


def _check_types(record: Record | Broken, *, has_references: bool) -> Record | Broken:
    """The record with the text of its source and the list of its targets, blank ones left out unless all are."""
    if isinstance(record, Broken):
        return record
    source, written, *group = record.cells
    if isinstance(written, list) and not has_references:
        problem = f"a list of {len(written)} targets: a training row has one (only evaluation rows may have several)"
        return Broken(record.where, problem, text=str(written))
    # Parquet and JSON write a missing text as null
    source, *targets = ("" if cell is None else cell for cell in (source, *_as_list(written)))
    for text in (source, *targets):
        if not isinstance(text, str):
            problem = f"a value of type `{type(text).__name__}` instead of text"
            return Broken(record.where, problem, text="\t".join(map(str, record.cells[:2])))
        if isinstance(written, list) and LONE_SURROGATE.search(text):  # other cells are checked where they are read
            return Broken(record.where, "not Unicode (half of a surrogate pair)", text=text)
    return Record(
        record.where, (source, [text for text in targets if has_visible_text(text)] or targets[:1] or [""], *group)
    )


def _as_list(cell: Any) -> list[Any]:
    return cell if isinstance(cell, list) else [cell]


def load_hub(source: Source) -> Any:
    """The split of a dataset of the Hub, by the library `datasets`. Raises UserError where it cannot be loaded."""
    import datasets  # takes seconds, and most recipes read files

    if os.path.exists(str(source.hub)):  # which `datasets` would read instead
        raise UserError(
            f"data source hub `{source.hub}`: here is a file or folder of that name; start from another folder, or name local "
            "files with `path`"
        )
    try:
        return datasets.load_dataset(source.hub, source.subset, split=source.split, revision=source.revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
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
    dataset = load_hub(source)
    wanted = dataset.select_columns(top_level_names(names, available=dataset.column_names, where=place))
    for index, record in enumerate(wanted):
        yield pick_cells(record, names, where=f"{place}:{index}")


def _read_demo(source: Source) -> Records:
    assert source.demo is not None
    for index, row in enumerate(demo_rows(source.demo, split=source.split)):
        yield Record(f"demo/{source.demo}/{source.split}:{index}", (row.source, row.target, row.group))


def _hash_content(source: Source, *, hash_file: HashFile) -> list[str]:
    if source.hub is not None:
        # `datasets` computes it from the commit, the subset and the split, but has no public name for it
        return [load_hub(source)._fingerprint]
    if source.demo is not None:
        return [str(GENERATOR_VERSION)]
    return [hash_file(path) for path in _local_paths(source)]
