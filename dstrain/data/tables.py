"""Reads TSV and CSV. Every row must have as many cells as the header or the first row: any other has lost its columns."""

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from dstrain.data.lines import read_byte_lines, read_lines, show_bytes
from dstrain.data.records import LONE_SURROGATE, Broken, Column, Record, Records, check_once, missing_column
from dstrain.errors import UserError

SAMPLE_ROWS = 100
"""How many rows of a TSV file are looked at to see whether all cells are in quotes."""

_TEXT = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LIST = re.compile(rf"\s*\[\s*{_TEXT}(?:[\s,]*(?:{_TEXT}|None|null|nan))*[\s,]*\]\s*", re.DOTALL)
"""A list of texts as Python, pandas or JSON writes it into a cell."""

_DELIMITERS = {
    "\t": "its cells seem to be divided by tabs: set `format: tsv` for the source",
    ",": "its cells seem to be divided by commas: set `format: csv` for the source",
    ";": "its cells seem to be divided by semicolons: convert it to commas or tabs once",
    "|": "its cells seem to be divided by vertical bars: convert it to commas or tabs once",
}
"""Characters that divide cells in files of another format, and what to say of them."""

SWALLOWED_ROWS = 3
"""A cell is taken for swallowed rows if so many lines, all with the columns of a row, lie between its quotes."""


def read_tsv(path: Path, columns: Sequence[Column], *, quoted: bool | None = None) -> Records:
    """Cells between tabs; the first line is a header if any column is given by name.

    quoted says whether cells are in quotes where needed, as pandas writes them, or quotes are text. None takes them for text
    and refuses rows and files that look quoted.

    Raises UserError if a column is missing, or if all cells look quoted.
    """
    if quoted:
        return _select(_read_quoted(path, delimiter="\t"), columns, path=path)
    if quoted is None:
        _check_not_all_quoted(path)
    records = _select(_split_lines(path, refuse_quotes=quoted is None), columns, path=path)
    return _explain_quotes(records) if quoted is None else records


def read_csv(path: Path, columns: Sequence[Column]) -> Records:
    """Cells between commas, quoted as in RFC 4180; the first line is a header if any column is given by name.

    Raises UserError if a column is missing.
    """
    return _select(_read_quoted(path, delimiter=","), columns, path=path)


def read_all_cells(path: Path, *, delimiter: str, quoted: bool) -> Records:
    """Every record with all its cells, a header among them; quotes are text unless `quoted`."""
    return _read_quoted(path, delimiter=delimiter) if quoted else _split_lines(path, refuse_quotes=False)


def _split_lines(path: Path, *, refuse_quotes: bool) -> Records:
    for line in read_lines(path):
        if isinstance(line, Broken):
            yield line
            continue
        cells = tuple(line.cells[0].split("\t"))
        if refuse_quotes and any(map(has_doubled_quotes, cells)):
            problem = f"a cell in quotes with doubled quotes in it; {_QUOTED}"
            yield Broken(line.where, problem, text=line.cells[0])
        else:
            yield Record(line.where, cells)


def _explain_quotes(records: Records) -> Records:
    """The records; of one that is broken at a quote the problem says how quotes are read."""
    for record in records:
        is_cut = isinstance(record, Broken) and any(map(_is_half_quoted, record.text.split("\t")))
        yield (
            replace(record, problem=f"{record.problem}; {_QUOTED}") if isinstance(record, Broken) and is_cut else record
        )


_QUOTED = "set `quoted: true` for the source if cells are quoted as in CSV, `quoted: false` if quotes are text"


def has_doubled_quotes(cell: str) -> bool:
    """Whether a cell is in quotes and has doubled ones in it, as CSV writes a cell with quotes."""
    return _is_in_quotes(cell) and '""' in cell[1:-1] and '"' not in cell[1:-1].replace('""', "")


def _is_half_quoted(cell: str) -> bool:
    """Whether a cell begins or ends with a quote, as the parts of a quoted cell do that has a tab or a line break."""
    return cell.startswith('"') != cell.endswith('"') or cell == '"'


def _is_in_quotes(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


def _check_not_all_quoted(path: Path) -> None:
    lines = [line.cells[0] for line in islice(read_lines(path), SAMPLE_ROWS) if isinstance(line, Record)]
    rows = [line.split("\t") for line in lines if line.strip()]
    if len(rows) > 1 and all(len(row) > 1 and all(map(_is_in_quotes, row)) for row in rows):
        raise UserError(f"{path}: every cell is in quotes; {_QUOTED}")


class _Lines:
    """The lines of a file, some of which can be given back to be read again."""

    def __init__(self, path: Path) -> None:
        self._lines = read_byte_lines(path)
        self._returned: deque[str] = deque()
        self.number = 0
        """Number of the last line taken."""
        self.taken: list[str] = []
        """The lines taken since this list was cleared."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        # bad bytes become lone surrogates, so that they spoil one record and not the rest of the file
        line = self._returned.popleft() if self._returned else next(self._lines).decode("utf-8", "surrogateescape")
        self.number += 1
        self.taken.append(line)
        return line

    def give_back_all_but_first(self) -> None:
        _, *again = self.taken
        self._returned.extendleft(reversed(again))
        self.number -= len(again)


def _read_quoted(path: Path, *, delimiter: str) -> Records:
    """Records of cells that may be quoted. Of lines that cannot be read only the first is lost."""
    lines = _Lines(path)
    # strict, because otherwise text after a closing quote would be taken in silence
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
    while True:
        lines.taken.clear()
        where = f"{path}:{lines.number + 1}"
        try:
            cells = next(reader, None)
            if cells is None:
                return
            _check_one_row(lines.taken, delimiter=delimiter, num_cells=len(cells))
        except csv.Error as error:
            span = "" if len(lines.taken) == 1 else f"; the quote that opens here spans {len(lines.taken)} lines"
            yield Broken(where, f"not CSV ({error}){span}", text=_show(lines.taken[0]))
            lines.give_back_all_but_first()
            continue
        if any(map(_has_surrogate, cells)):
            yield Broken(where, "not UTF-8", text=_show("".join(lines.taken)))
        else:
            yield Record(where, tuple(cells))


def _check_one_row(lines: Sequence[str], *, delimiter: str, num_cells: int) -> None:
    """Raises csv.Error if lines that were read as one record are rows: each has the delimiters of a row."""
    is_long = len(lines) >= SWALLOWED_ROWS + 2 and num_cells > 1
    if is_long and all(line.count(delimiter) == num_cells - 1 for line in lines):
        raise csv.Error("whole rows in a cell")


def _has_surrogate(cell: str) -> bool:
    return not cell.isascii() and LONE_SURROGATE.search(cell) is not None


def _select(records: Records, columns: Sequence[Column], *, path: Path) -> Records:
    """The wanted cells of each record; a record with another number of cells than the first is broken."""
    header = None
    if not all(isinstance(column, int) for column in columns):
        header = _read_header(records, columns, path=path)
    named: tuple[str, ...] = () if header is None else header.cells
    indices = [column if isinstance(column, int) else named.index(column) for column in columns]
    num_cells = len(named)
    for record in records:
        if isinstance(record, Broken):
            yield record
            continue
        if not "".join(record.cells).strip():
            yield Record(record.where, ("",) * len(indices))
            continue
        problem = _check_cells(record, indices=indices, num_cells=num_cells, named=named)
        if problem is not None:
            yield Broken(record.where, problem, text="\t".join(record.cells))
            continue
        num_cells = num_cells or len(record.cells)
        yield Record(record.where, tuple(record.cells[index] for index in indices))


def _read_header(records: Records, columns: Sequence[Column], *, path: Path) -> Record:
    header = next(records, None)
    if not isinstance(header, Record):
        found = "" if header is None else f" ({header.problem})"
        raise UserError(
            f"{path}:1: columns are given by name, but there is no header{found}: add one, or give columns by number"
        )
    for column in columns:
        if isinstance(column, str) and column not in header.cells:
            hint = hint_delimiter(header.cells)
            raise UserError(f"{header.where}: {missing_column(column, available=header.cells)}{hint}")
        check_once(column, available=header.cells, where=header.where)
    return header


def _check_cells(record: Record, *, indices: Sequence[int], num_cells: int, named: tuple[str, ...]) -> str | None:
    """What is wrong with the number of a record's cells; num_cells is that of the header or the first row, 0 before it."""
    found = len(record.cells)
    columns = "1 column" if found == 1 else f"{found} columns"
    if found <= max(indices):
        hint = "" if num_cells else hint_delimiter(record.cells)  # said of the first row, of which all others follow
        return f"{columns}, but column {max(indices)} (counted from 0) is needed{hint}"
    if record.cells == named:
        return "the header once more, as in files that were joined"
    if any(_LIST.fullmatch(record.cells[index]) for index in indices[:2]):
        return (
            "a list of texts in a cell, which TSV and CSV cannot tell from a text: write JSONL, where a row may have a list of "
            "references; there it may also be a text"
        )
    surplus = "".join(record.cells[num_cells:]) if num_cells else ""
    if num_cells and (found < num_cells or surplus.strip()):
        return f"{columns}, but the {'header' if named else 'first row'} has {num_cells}"
    return None


def hint_delimiter(cells: Sequence[str]) -> str:
    """What the cells of a whole line in one cell seem to be divided by, and the way out."""
    found = (
        [(cells[0].count(delimiter), way_out) for delimiter, way_out in _DELIMITERS.items()] if len(cells) == 1 else []
    )
    count, way_out = max(found, default=(0, ""))
    return f"; {way_out}" if count else ""


def _show(text: str) -> str:
    return show_bytes(text.encode("utf-8", errors="surrogateescape"))
