"""Reads records from JSONL, TSV, CSV, Parquet and line-aligned text. Streams: never holds a whole file in memory.

A record that does not parse becomes a `Broken` record; what is done with it is not decided here. Only a line feed ends a
line: U+2028, U+0085 and similar characters are part of the text.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstrain.errors import UserError

Column = str | int

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
PARQUET_BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Record:
    """The requested cells of a record, in the requested order; where is `file:line` (Parquet: `file:row`)."""

    where: str
    cells: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """A record that does not parse: the problem, and its text as far as it can be shown."""

    where: str
    problem: str
    text: str


Records = Iterator[Record | Broken]
Reader = Callable[[Path, Sequence[Column]], Records]


def read_jsonl(path: Path, columns: Sequence[Column]) -> Records:
    """One JSON object per line; dotted columns reach into nested objects."""
    names = check_names(columns, where=str(path))
    for line in read_lines(path):
        if isinstance(line, Broken):
            yield line
        elif not line.cells[0].strip():
            yield Record(line.where, ("",) * len(names))
        else:
            yield _parse_json(line, names)


def read_tsv(path: Path, columns: Sequence[Column]) -> Records:
    """Cells between tabs, without quoting or escapes; the first line is a header if any column is given by name."""
    lines = read_lines(path)
    split = (
        line if isinstance(line, Broken) else Record(line.where, tuple(line.cells[0].split("\t"))) for line in lines
    )
    return _select(split, columns, path=path)


def read_csv(path: Path, columns: Sequence[Column]) -> Records:
    """Comma-separated cells, quoted as in RFC 4180; the first line is a header if any column is given by name."""
    return _select(_read_csv_records(path), columns, path=path)


def read_parquet(path: Path, columns: Sequence[Column]) -> Records:
    """Rows of a Parquet file, read in batches; dotted columns reach into structs.

    Raises UserError if it is not a Parquet file or lacks a column.
    """
    names = check_names(columns, where=str(path))
    number = 0
    for batch in _read_batches(path, names):
        for record in _batch_records(batch):
            number += 1
            where = f"{path}:{number}"
            if isinstance(record, UnicodeDecodeError):
                yield Broken(where, "not UTF-8", text=_show_bytes(record.object))
            elif isinstance(record, Exception):
                yield Broken(where, f"cannot be read ({record})", text="")
            else:
                yield pick_cells(record, names, where=where)


def read_aligned(path: Path, target_path: Path) -> Records:
    """Line n of one file with line n of the other.

    Raises UserError if the numbers of lines differ.
    """
    num_lines, num_target_lines = _count_lines(path), _count_lines(target_path)
    if num_lines != num_target_lines:
        raise UserError(
            f"{path} has {num_lines} lines and {target_path} has {num_target_lines}: "
            "aligned files must have the same number of lines"
        )
    for source, target in zip(read_lines(path), read_lines(target_path), strict=True):
        if isinstance(source, Broken):
            yield source
        elif isinstance(target, Broken):
            yield target
        else:
            yield Record(source.where, source.cells + target.cells)


READERS: dict[str, Reader] = {"jsonl": read_jsonl, "tsv": read_tsv, "csv": read_csv, "parquet": read_parquet}
"""Format name in the configuration, which is the file suffix too, to its reader."""


def read_lines(path: Path) -> Records:
    """Each line as a record of one cell, without line end (LF or CR LF) and byte order mark."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            content = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            content = content.removesuffix(b"\n").removesuffix(b"\r")
            try:
                text = content.decode("utf-8")
            except UnicodeDecodeError as error:
                yield Broken(where, f"not UTF-8 at byte {error.start + 1} of the line", text=_show_bytes(content))
                continue
            yield Record(where, (text,))


def check_names(columns: Sequence[Column], *, where: str) -> list[str]:
    """The columns as names. Raises UserError if one is a number."""
    for column in columns:
        if isinstance(column, int):
            raise UserError(
                f"{where}: column {column} is a number, but here columns have names: "
                "set source_column and target_column to names (dotted for nested fields)"
            )
    return [str(column) for column in columns]


def top_level_names(names: Sequence[str], *, available: Sequence[str], where: str) -> list[str]:
    """The available columns that contain these names, which may be dotted. Raises UserError if one is missing."""
    found = [name if name in available else name.split(".")[0] for name in names]
    for name, top_level in zip(names, found, strict=True):
        if top_level not in available:
            raise UserError(f"{where}: {_missing(name, available=available)}")
        _check_once(top_level, available=available, where=where)
    return list(dict.fromkeys(found))


def pick_cells(record: Mapping[str, Any], names: Sequence[str], *, where: str) -> Record | Broken:
    """The cells of a record with named fields; dotted names reach into nested ones."""
    try:
        return Record(where, tuple(_find(record, name) for name in names))
    except KeyError as error:
        problem = _missing(error.args[0], available=list(_names_in(record)))
        return Broken(where, problem, text=json.dumps(record, ensure_ascii=False, default=str))


def _find(record: Mapping[str, Any], name: str) -> Any:
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if value is None:
            return None
        if not isinstance(value, Mapping) or part not in value:
            raise KeyError(name)
        value = value[part]
    return value


def _names_in(record: Mapping[str, Any], *, prefix: str = "") -> Iterator[str]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _names_in(value, prefix=f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _missing(name: str, *, available: Iterable[str]) -> str:
    columns = ", ".join(f"`{column}`" for column in available)
    return f"no column `{name}`; the columns are {columns} (set source_column and target_column of the source)"


def _parse_json(line: Record, names: Sequence[str]) -> Record | Broken:
    text = line.cells[0]
    try:
        record = json.loads(text)
    except ValueError as error:
        return Broken(line.where, f"not JSON ({error})", text=text)
    except RecursionError:
        return Broken(line.where, "JSON nested too deeply", text=text)
    if not isinstance(record, dict):
        return Broken(line.where, "not a JSON object", text=text)
    picked = pick_cells(record, names, where=line.where)
    # JSON can escape half of a surrogate pair: not a character, it would raise much later, when text is encoded
    if isinstance(picked, Record) and not all(_is_unicode(cell) for cell in picked.cells):
        return Broken(line.where, "not Unicode (half of a surrogate pair)", text=text)
    return picked


def _read_csv_records(path: Path) -> Records:
    consumed: list[str] = []
    # bad bytes become lone surrogates, so that they spoil one record and not the rest of the file
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:

        def remember() -> Iterator[str]:
            for line in file:
                consumed.append(line)
                yield line

        # strict, because otherwise a stray quote would swallow the lines after it
        reader = csv.reader(remember(), strict=True)
        while True:
            where = f"{path}:{reader.line_num + 1}"
            consumed.clear()
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield Broken(where, f"not CSV ({error})", text=_show("".join(consumed)))
                continue
            if cells is None:
                return
            if all(_is_unicode(cell) for cell in cells):
                yield Record(where, tuple(cells))
            else:
                yield Broken(where, "not UTF-8", text=_show("".join(consumed)))


def _select(records: Records, columns: Sequence[Column], *, path: Path) -> Records:
    indices = [column for column in columns if isinstance(column, int)]
    if len(indices) < len(columns):
        header = next(records, None)
        if not isinstance(header, Record):
            raise UserError(
                f"{path}:1: columns are given by name, but there is no header: add one, or give columns by number"
            )
        for column in columns:
            if isinstance(column, str) and column not in header.cells:
                raise UserError(f"{header.where}: {_missing(column, available=header.cells)}")
            _check_once(column, available=header.cells, where=header.where)
        indices = [column if isinstance(column, int) else header.cells.index(column) for column in columns]
    for record in records:
        if isinstance(record, Broken):
            yield record
        elif not "".join(record.cells).strip():
            yield Record(record.where, ("",) * len(indices))
        elif len(record.cells) <= max(indices):
            columns = "1 column" if len(record.cells) == 1 else f"{len(record.cells)} columns"
            problem = f"{columns}, but column {max(indices)} (counted from 0) is needed"
            yield Broken(record.where, problem, text="\t".join(record.cells))
        else:
            yield Record(record.where, tuple(record.cells[index] for index in indices))


def _check_once(column: Column, *, available: Sequence[Column], where: str) -> None:
    if available.count(column) > 1:
        raise UserError(f"{where}: two columns are named `{column}`: rename one")


def _read_batches(path: Path, names: Sequence[str]) -> Iterator[Any]:
    # large, and needed for Parquet only
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            wanted = top_level_names(names, available=file.schema_arrow.names, where=str(path))
            yield from file.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=wanted)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a Parquet file, or damaged ({error}): restore it, correct `path` or set `format`"
        ) from error


def _batch_records(batch: Any) -> list[dict[str, Any] | Exception]:
    try:
        rows: list[dict[str, Any] | Exception] = batch.to_pylist()
    except (ValueError, OverflowError):
        rows = [_read_row(batch.slice(index, 1)) for index in range(batch.num_rows)]
    return rows


def _read_row(batch: Any) -> dict[str, Any] | Exception:
    try:
        row: dict[str, Any] = batch.to_pylist()[0]
    except (ValueError, OverflowError) as error:  # not UTF-8, or a date that Python cannot represent
        return error
    return row


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _is_unicode(cell: Any) -> bool:
    return not isinstance(cell, str) or LONE_SURROGATE.search(cell) is None


def _show(text: str) -> str:
    return _show_bytes(text.encode("utf-8", errors="surrogateescape"))


def _show_bytes(content: bytes) -> str:
    return content.decode("utf-8", errors="backslashreplace").rstrip("\r\n")
