"""Rows to predict: read whole from plain lines, TSV or JSON lines, and written again with what was predicted for them.

Streams. Nothing of a row is lost: its cells and keys come back as they are in the file. Unlike rows to train on, none is
skipped: a row that cannot be read ends the reading, because the output would no longer be aligned with the input.
"""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dstrain.data.lines import read_lines
from dstrain.data.records import LONE_SURROGATE, Broken, Column, Record, find_cell, names_in
from dstrain.data.tables import has_doubled_quotes
from dstrain.errors import UserError

Format = Literal["lines", "tsv", "jsonl"]

ADDED = ("prediction", "rank", "score")
"""Columns that are added to a TSV file; the last two only where several predictions a row are written."""
ADDED_KEY = {False: "prediction", True: "predictions"}
"""Key that is added to a JSON object, by whether there are several predictions."""

WINDOW_ROWS = 16_384
"""Most rows that are predicted together. Fewer would fill batches worse, more would come later and need more memory."""
WINDOW_CHARACTERS = 16_000_000
"""Characters at which such a window ends earlier."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the rows are laid out in the input, and so in the output. Columns of TSV are names or numbers from 0."""

    format: Format
    source_column: Column = 0
    source_language_column: Column | None = None
    target_language_column: Column | None = None
    has_several: bool = False
    """Whether several predictions with their scores are written for a row."""

    @property
    def columns(self) -> list[Column]:
        """The columns that are read."""
        columns = (self.source_column, self.source_language_column, self.target_language_column)
        return [column for column in columns if column is not None]

    @property
    def has_header(self) -> bool:
        """Whether the first line names the columns: as in data sources, if any column is given by name."""
        return self.format == "tsv" and not all(isinstance(column, int) for column in self.columns)


@dataclass(frozen=True, slots=True)
class InputRow:
    """One row of the input. Languages are None where the row names none."""

    where: str
    line: str
    """The whole row as it is in the file."""
    source: str
    source_language: str | None = None
    target_language: str | None = None
    is_header: bool = False


@dataclass(frozen=True, slots=True)
class Prediction:
    """One text for a row, and its score where the search has one."""

    text: str
    score: float | None = None


def read_inputs(path: Path, *, layout: Layout, file: io.BufferedReader | None = None) -> Iterator[InputRow]:
    """The rows in order; `file` is open already, such as standard input, and `path` its name in messages.

    Raises:
        UserError: a row cannot be read, or lacks a column; the message names file and line.
    """
    readers: dict[Format, Callable[[Record, Layout], InputRow]] = {
        "lines": _read_line,
        "jsonl": _read_object,
        "tsv": _Cells(layout),
    }
    read = readers[layout.format]
    for record in read_lines(path, file=file):
        if isinstance(record, Broken):
            raise UserError(f"{record.where}: {record.problem}: correct the file")
        yield read(record, layout)


def read_windows(rows: Iterator[InputRow]) -> Iterator[list[InputRow]]:
    """The rows in windows that fit into memory."""
    window: list[InputRow] = []
    num_characters = 0
    for row in rows:
        window.append(row)
        num_characters += len(row.line)
        if len(window) == WINDOW_ROWS or num_characters >= WINDOW_CHARACTERS:
            yield window
            window, num_characters = [], 0
    if window:
        yield window


def write_row(row: InputRow, predictions: Sequence[Prediction], *, layout: Layout) -> str:
    """The lines of the output for one row, each with its line break; without predictions the row has an empty one."""
    if layout.format == "lines":
        return (predictions[0].text if predictions else "") + "\n"
    if not row.line.strip():
        return row.line + "\n"
    if layout.format == "jsonl":
        return _write_object(row, predictions, layout=layout)
    names = ADDED if layout.has_several else ADDED[:1]
    if row.is_header:
        return "\t".join((row.line, *names)) + "\n"
    if not predictions:
        return "\t".join((row.line, *("" for _ in names))) + "\n"
    added = ((each.text.replace("\t", " "), str(rank), repr(each.score)) for rank, each in enumerate(predictions, 1))
    return "".join("\t".join((row.line, *cells[: len(names)])) + "\n" for cells in added)


def _write_object(row: InputRow, predictions: Sequence[Prediction], *, layout: Layout) -> str:
    value: Any = predictions[0].text if predictions else ""
    if layout.has_several:
        value = [{"text": each.text, "score": each.score} for each in predictions]
    added = json.dumps({ADDED_KEY[layout.has_several]: value}, ensure_ascii=False)
    # into the text, so that numbers and repeated keys stay as they were written
    return f"{row.line.rstrip()[:-1].rstrip()}, {added[1:]}\n"


def _read_line(record: Record, layout: Layout) -> InputRow:
    (line,) = record.cells
    return InputRow(record.where, line, source=line)


def _read_object(record: Record, layout: Layout) -> InputRow:
    where, (line,) = record.where, record.cells
    if not line.strip():
        return InputRow(where, line, source="")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error}): every line is one JSON object") from error
    if not isinstance(value, dict):
        raise UserError(f'{where}: not a JSON object: every line is one, such as {{"source": "…"}}')
    if (added := ADDED_KEY[layout.has_several]) in value:
        raise UserError(f"{where}: there is a key `{added}` already, which would be added: rename it")
    cells = [_find_text(value, column, where=where) for column in layout.columns]
    return _row(record, line, cells, layout=layout)


def _find_text(value: dict[str, Any], column: Column, *, where: str) -> str:
    try:
        found = find_cell(value, str(column))
    except KeyError as error:
        raise UserError(f"{where}: {_missing(column, available=list(names_in(value)))}") from error
    if not isinstance(found, str | None):
        raise UserError(f"{where}: `{column}` is a value of type `{type(found).__name__}` instead of text")
    if found is not None and LONE_SURROGATE.search(found):
        raise UserError(f"{where}: `{column}` is not Unicode (half of a surrogate pair): correct the row")
    return found or ""


class _Cells:
    """Reads lines of TSV, of which every one must have as many cells as the first."""

    def __init__(self, layout: Layout) -> None:
        self._places = [] if layout.has_header else [column for column in layout.columns if isinstance(column, int)]
        self._num_cells: int | None = None

    def __call__(self, record: Record, layout: Layout) -> InputRow:
        where, (line,) = record.where, record.cells
        cells = line.split("\t")
        if self._num_cells is None and layout.has_header:
            self._num_cells, self._places = len(cells), _find_columns(cells, layout=layout, where=where)
            return InputRow(where, line, source="", is_header=True)
        if not line.strip():
            return InputRow(where, line, source="")
        self._num_cells = self._num_cells or len(cells)
        if len(cells) != self._num_cells:
            first = "header" if layout.has_header else "first row"
            raise UserError(f"{where}: {len(cells)} cells, but the {first} has {self._num_cells}: correct the row")
        if max(self._places) >= len(cells):
            raise UserError(f"{where}: {len(cells)} cells, but column {max(self._places)} (counted from 0) is needed")
        found = [cells[place] for place in self._places]
        if has_doubled_quotes(found[0]):
            raise UserError(
                f"{where}: the source is in quotes with doubled quotes in it, as CSV writes them, and quotes are text here: "
                "write the cells as they are, or JSON lines"
            )
        return _row(record, line, found, layout=layout)


def _find_columns(names: Sequence[str], *, layout: Layout, where: str) -> list[int]:
    for column in layout.columns:
        if isinstance(column, str) and names.count(column) != 1:
            problem = f"{names.count(column)} columns are named `{column}`: rename all but one"
            raise UserError(f"{where}: {problem if column in names else _missing(column, available=names)}")
    if ADDED[0] in names:
        raise UserError(f"{where}: there is a column `{ADDED[0]}` already, which would be added: rename it")
    return [column if isinstance(column, int) else names.index(column) for column in layout.columns]


def _missing(column: Column, *, available: Sequence[str]) -> str:
    columns = ", ".join(f"`{name}`" for name in available)
    return f"no column `{column}`; the columns are {columns}: name the one that is meant, the source's with --source-column"


def _row(record: Record, line: str, cells: Sequence[str], *, layout: Layout) -> InputRow:
    source, *languages = cells
    given = iter(languages)
    source_language = None if layout.source_language_column is None else next(given)
    target_language = None if layout.target_language_column is None else next(given)
    return InputRow(record.where, line, source, source_language or None, target_language or None)
