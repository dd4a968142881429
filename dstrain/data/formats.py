"""Reads records from JSONL, Parquet and line-aligned text, and knows all formats. Streams: never holds a whole file in memory.

A record that does not parse becomes a `Broken` record; what is done with it is not decided here.
"""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dstrain.data import parquet
from dstrain.data.lines import count_lines, read_lines, show_bytes
from dstrain.data.records import (
    LONE_SURROGATE,
    UNREADABLE,
    Broken,
    Column,
    Reader,
    Record,
    Records,
    check_names,
    pick_cells,
    top_level_names,
)
from dstrain.data.tables import read_csv, read_tsv
from dstrain.errors import UserError


def read_jsonl(path: Path, columns: Sequence[Column]) -> Records:
    """One JSON object per line; dotted columns reach into nested objects.

    Raises UserError if the file is one JSON array instead.
    """
    names = check_names(columns, where=str(path))
    _check_no_array(path)
    for line in read_lines(path):
        if isinstance(line, Broken):
            yield line
        elif not line.cells[0].strip():
            yield Record(line.where, ("",) * len(names))
        else:
            yield _parse_json(line, names)


def read_parquet(path: Path, columns: Sequence[Column]) -> Records:
    """Rows of a Parquet file, read in batches; dotted columns reach into structs.

    Raises UserError if it is not a Parquet file or lacks a column.
    """
    names = check_names(columns, where=str(path))
    for number, row in enumerate(_read_parquet(path, names), start=1):
        where = f"{path}:{number}"
        if isinstance(row, UnicodeDecodeError):
            yield Broken(where, "not UTF-8", text=show_bytes(row.object))
        elif isinstance(row, Exception):
            yield Broken(where, f"{UNREADABLE} ({row})", text="")
        else:
            yield pick_cells(row, names, where=where)


def read_aligned(path: Path, target_path: Path) -> Records:
    """Line n of one file with line n of the other.

    Raises UserError if the numbers of lines differ.
    """
    num_lines, num_target_lines = count_lines(path), count_lines(target_path)
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


def _check_no_array(path: Path) -> None:
    first = next((line.cells[0] for line in read_lines(path) if isinstance(line, Record) and line.cells[0].strip()), "")
    if re.match(r"\s*\[\s*(\{|$)", first):
        raise UserError(
            f"{path} is one JSON array; JSONL has an object in each line: convert it with jq -c '.[]' {path.name}"
        )


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


def _read_parquet(path: Path, names: Sequence[str]) -> Iterator[parquet.Row]:
    import pyarrow  # large, and needed for Parquet only

    try:
        wanted = top_level_names(names, available=parquet.column_names(path), where=str(path))
        yield from parquet.read_rows(path, columns=wanted)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a Parquet file, or damaged ({error}): restore it, correct `path` or set `format`"
        ) from error


def _is_unicode(cell: Any) -> bool:
    return not isinstance(cell, str) or LONE_SURROGATE.search(cell) is None


READERS: dict[str, Reader] = {"jsonl": read_jsonl, "tsv": read_tsv, "csv": read_csv, "parquet": read_parquet}
"""Format name in the configuration, which is the file suffix too, to its reader."""
