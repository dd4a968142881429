"""The first records of a source with all their cells: for whoever has to find out which columns hold the texts."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dstrain.config.data import Source
from dstrain.data import parquet
from dstrain.data.lines import read_lines
from dstrain.data.records import Broken, Column, Record, find_cell, names_in
from dstrain.data.sources import load_hub
from dstrain.data.tables import read_all_cells
from dstrain.errors import UserError


@dataclass(frozen=True, slots=True)
class Peek:
    """Columns by name, or by number where they have none; and the cells of each record, in the order of the columns."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]


def peek(source: Source, *, file_format: str, num_rows: int) -> Peek:
    """The first records that can be read. Those of TSV and CSV have as many cells as the first one, a header among them.

    Raises UserError if the source cannot be read, or if it has no record.
    """
    place = source.hub or str(source.path)
    if file_format in ("tsv", "csv"):
        is_quoted = file_format == "csv" or bool(source.quoted)
        delimiter = "\t" if file_format == "tsv" else ","
        records = read_all_cells(Path(place), delimiter=delimiter, quoted=is_quoted)
        cells = [
            record.cells for record in islice(records, num_rows) if isinstance(record, Record) and any(record.cells)
        ]
        if not cells:
            raise UserError(f"{place}: no row can be read: is it {file_format.upper()} in UTF-8?")
        return Peek(tuple(range(len(cells[0]))), tuple(row for row in cells if len(row) == len(cells[0])))
    objects = [each for each in islice(_objects(source, file_format=file_format), num_rows) if each is not None]
    if not objects:
        raise UserError(f"{place}: no row can be read")
    names = tuple(dict.fromkeys(name for each in objects for name in names_in(each)))
    return Peek(names, tuple(tuple(_cell(each, name) for name in names) for each in objects))


def _objects(source: Source, *, file_format: str) -> Iterator[Mapping[str, Any] | None]:
    """Records with named fields; None for one that cannot be read."""
    if source.hub is not None:
        yield from iter(load_hub(source))
    elif file_format == "parquet":
        path = Path(str(source.path))
        for row in parquet.read_rows(path, columns=parquet.column_names(path)):
            yield row if isinstance(row, Mapping) else None
    else:
        for line in read_lines(Path(str(source.path))):
            if isinstance(line, Broken) or line.cells[0].strip():
                yield None if isinstance(line, Broken) else _object(line.cells[0])


def _object(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _cell(record: Mapping[str, Any], name: str) -> Any:
    try:
        return find_cell(record, name)
    except KeyError:
        return None
