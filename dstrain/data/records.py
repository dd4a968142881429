"""What a reader gives for each row of a file: its cells, or what is wrong with it; and how columns are found by name."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstrain.errors import UserError

Column = str | int

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a pair of UTF-16: not a character, and not to be written as UTF-8."""


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


NO_COLUMN = "no column"
"""How it is said that a column is not there."""
UNREADABLE = "cannot be read"
"""Begins the problem of a record of which not even a text is known."""

Records = Iterator[Record | Broken]
Reader = Callable[[Path, Sequence[Column]], Records]


def check_names(columns: Sequence[Column], *, where: str) -> list[str]:
    """The columns as names. Raises UserError if one is a number."""
    for column in columns:
        if isinstance(column, int):
            raise UserError(
                f"{where}: column {column} is a number, but here columns have names: "
                "set source_column and target_column to names (dotted for nested fields)"
            )
    return [str(column) for column in columns]


def check_once(column: Column, *, available: Sequence[Column], where: str) -> None:
    """Raises UserError if two of the available columns have this name."""
    if available.count(column) > 1:
        raise UserError(f"{where}: two columns are named `{column}`: rename one")


def top_level_names(names: Sequence[str], *, available: Sequence[str], where: str) -> list[str]:
    """The available columns that contain these names, which may be dotted. Raises UserError if one is missing."""
    found = [name if name in available else name.split(".")[0] for name in names]
    for name, top_level in zip(names, found, strict=True):
        if top_level not in available:
            raise UserError(f"{where}: {missing_column(name, available=available)}")
        check_once(top_level, available=available, where=where)
    return list(dict.fromkeys(found))


def pick_cells(record: Mapping[str, Any], names: Sequence[str], *, where: str) -> Record | Broken:
    """The cells of a record with named fields; dotted names reach into nested ones."""
    try:
        return Record(where, tuple(find_cell(record, name) for name in names))
    except KeyError as error:
        problem = missing_column(error.args[0], available=list(names_in(record)))
        return Broken(where, problem, text=json.dumps(record, ensure_ascii=False, default=str))


def missing_column(name: str, *, available: Iterable[str]) -> str:
    """What to say of a column that is not there."""
    columns = ", ".join(f"`{column}`" for column in available)
    return f"{NO_COLUMN} `{name}`; the columns are {columns} (set source_column and target_column of the source)"


def find_cell(record: Mapping[str, Any], name: str) -> Any:
    """The value of a field; a dotted name reaches into nested ones. Raises KeyError if there is none."""
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


def names_in(record: Mapping[str, Any], *, prefix: str = "") -> Iterator[str]:
    """The names of all fields of a record, those of nested ones dotted."""
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from names_in(value, prefix=f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
