"""Looks at data: which format a file has, how its rows are read, and what they hold. Reads everything once, in bounded memory."""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dstrain.config.arguments import shell_command
from dstrain.config.data import Rules, Source
from dstrain.config.hub import hub_problem
from dstrain.config.recipe import Task
from dstrain.config.spelling import format_suffix
from dstrain.data.bad_rows import BadRow
from dstrain.data.formats import READERS
from dstrain.data.lines import count_lines, read_lines
from dstrain.data.peek import peek
from dstrain.data.records import Column, Record
from dstrain.data.sources import read_rows
from dstrain.data.tables import has_doubled_quotes, hint_delimiter
from dstrain.draft.columns import choose_columns
from dstrain.errors import UserError

PEEKED_ROWS = 500
SAMPLE_ROWS = 10_000
"""Rows that are looked at for languages, task and lengths: a fixed random sample."""
NUM_SIDES = 2
MOST_COUNTED = 10_000
"""Characters of a text that count for the size of a vocabulary."""


@dataclass(frozen=True, slots=True)
class Found:
    """A source of rows, and why it is read so."""

    source: Source
    why: str
    unused: tuple[Column, ...] = ()
    """Columns of which nothing is made."""
    codes: frozenset[str] = frozenset()
    """Of languages, in the rows that were looked at."""
    first_row: str = ""
    """A sentence about whether the first row is a header."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What the usable rows of sources hold."""

    num_rows: int
    sample: tuple[tuple[str, str], ...]
    longest: tuple[int, int]
    """Characters of the longest source and of the longest target."""
    num_characters: int
    """Of each text at most MOST_COUNTED: a tokenizer does not need more pieces for one line without an end."""
    distinct: int
    """Different characters."""
    bad: Counter[str] = field(default_factory=Counter)
    """Unusable rows by reason."""
    first_bad: str = ""
    """The place of the first of them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user says of the data; None is to be found out."""

    source_column: Column | None = None
    target_column: Column | None = None
    source_language: str | None = None
    target_language: str | None = None
    subset: str | None = None
    """Of a dataset on the Hub."""


def find_sources(names: Sequence[str], *, asked: Asked, split: str = "train") -> list[Found]:
    """The sources that files, or names on the Hub, are: two files of plain lines are the sides of one.

    Raises UserError if a name is neither, or if a file has no two texts in a row.
    """
    found: list[Found] = []
    left = list(names)
    while left:
        name = left.pop(0)
        if not Path(name).is_file():
            found.append(_on_hub(name, asked=asked, split=split))
            continue
        file_format = find_format(Path(name))
        if file_format == "text":
            if not left or not Path(left[0]).is_file():
                raise UserError(f"{name}: {_why_text(Path(name))}")
            found.append(_aligned(name, left.pop(0)))
            continue
        found.append(_table(name, file_format=file_format, asked=asked))
    return found


def find_format(path: Path) -> str:
    """The format of a file: by its suffix, else by its first lines. `text` has one text in each line."""
    _refuse_array(path)
    suffix = format_suffix(path)
    if suffix in READERS:
        return suffix
    lines = _first_lines(path)
    if not lines:
        raise UserError(f"{path}: no line can be read: is it text in UTF-8?")
    if all(line.lstrip().startswith("{") for line in lines):
        return "jsonl"
    tabs = Counter(line.count("\t") for line in lines)
    usual, number = tabs.most_common(1)[0]
    return "tsv" if usual > 0 and number > 0.9 * len(lines) else "text"


def _first_lines(path: Path) -> list[str]:
    """The first lines that can be read and are not empty."""
    records = islice(read_lines(path), PEEKED_ROWS)
    return [each.cells[0] for each in records if isinstance(each, Record) and each.cells[0].strip()]


def _refuse_array(path: Path) -> None:
    """Raises UserError for a JSON array of objects: one value, where there must be one in each line."""
    with path.open("rb") as file:
        head = file.read(1000)
    if re.match(rb"(?:\xef\xbb\xbf)?\s*\[\s*\{", head):
        convert = f"jq -c '.[]' {shell_command([path])} > {shell_command([path.with_suffix('.lines.jsonl')])}"
        raise UserError(f"{path}: a JSON array; rows are read from JSON lines, an object in each: {convert}")


def _why_text(path: Path) -> str:
    """What a file without columns has instead, and the way out."""
    lines = _first_lines(path)
    with_tab = sum("\t" in line for line in lines)
    if not with_tab:
        return "one text in each line, and no tab: name the file of the other side behind it"
    number = next(number for number, line in enumerate(lines, start=1) if "\t" not in line or line.count("\t") > 1)
    return (
        f"{with_tab} of its first {len(lines)} lines with text have a tab, and TSV needs as many in each; the first other "
        f"one is number {number}: mend or remove these"
    )


def _hint(source: Source, *, file_format: str) -> str:
    """What may be wrong with a table whose first row has one cell only."""
    lines = _first_lines(Path(str(source.path)))
    with_tab = sum("\t" in line for line in lines)
    if file_format == "tsv" and with_tab:
        return f"; {with_tab} of its first {len(lines)} lines with text have a tab, and the first has none: mend or remove those"
    return hint_delimiter(lines[:1])


def look_at(sources: Sequence[Source], *, has_references: bool = False) -> Rows:
    """What the rows hold. Raises UserError if a source cannot be read, or if no row can be used."""
    bad: Counter[str] = Counter()
    first: list[str] = []

    def on_bad(row: BadRow) -> None:
        bad[row.reason] += 1
        if not first:
            first.append(row.where)

    chance = random.Random(0)
    sample: list[tuple[str, str]] = []
    number = num_characters = 0
    longest = [0] * NUM_SIDES
    characters: set[str] = set()
    rules = Rules(undecodable="skip")
    rows = read_rows(sources, task=Task(kind="text"), rules=rules, on_bad=on_bad, has_references=has_references)
    for number, row in enumerate(rows, start=1):
        pair = (row.source, row.target)
        longest = [max(most, len(text)) for most, text in zip(longest, pair, strict=True)]
        num_characters += sum(min(len(text), MOST_COUNTED) for text in pair)
        characters.update(row.source, row.target)
        place = number - 1 if number <= SAMPLE_ROWS else chance.randrange(number)
        if place < SAMPLE_ROWS:
            sample[place : place + 1] = [pair]
    if number == 0:
        where = f" ({sum(bad.values()):,} cannot be used, the first at {first[0]})" if first else ""
        raise UserError(f"{', '.join(source.place for source in sources)}: no usable row{where}")
    return Rows(number, tuple(sample), (longest[0], longest[1]), num_characters, len(characters), bad, *first)


def _on_hub(name: str, *, asked: Asked, split: str) -> Found:
    if hub_problem(name) is not None or "." in name.rpartition("/")[2]:
        raise UserError(f"{name}: no such file, and no name of a dataset on the Hub (`owner/name`)")
    place = Source(hub=name, subset=asked.subset, split=split)
    return _with_columns(place, file_format="hub", asked=asked, why="a dataset of the Hub")


def _aligned(name: str, target: str) -> Found:
    if find_format(Path(target)) != "text":
        raise UserError(f"{target}: the other side of {name} has one text in each line, and no tab")
    counts = count_lines(Path(name)), count_lines(Path(target))
    if counts[0] != counts[1]:
        raise UserError(
            f"{name} has {counts[0]:,} lines and {target} has {counts[1]:,}: both sides need the same number"
        )
    return Found(
        Source(path=name, target_path=target), "two files of plain lines; the first one is taken for the source"
    )


def _table(name: str, *, file_format: str, asked: Asked) -> Found:
    path = Path(name)
    by_suffix = format_suffix(path) == file_format
    given: dict[str, Any] = {"path": name, **({} if by_suffix else {"format": file_format})}
    why = f"{file_format.upper()} by its {'suffix' if by_suffix else 'first lines'}"
    if file_format == "tsv" and _is_quoted(path):
        given["quoted"] = True
        why += ", with cells in quotes"
    return _with_columns(Source.model_validate(given), file_format=file_format, asked=asked, why=why)


def _with_columns(source: Source, *, file_format: str, asked: Asked, why: str) -> Found:
    first, second = asked.source_column, asked.target_column
    reason, unused, codes = "the columns that were named", tuple[Column, ...](), frozenset[str]()
    languages: dict[str, Column] = {}
    first_row = ""
    if first is None or second is None:
        peeked = peek(source, file_format=file_format, num_rows=PEEKED_ROWS)
        pair = (asked.source_language, asked.target_language)
        hint = (
            _hint(source, file_format=file_format) if file_format in ("tsv", "csv") and len(peeked.columns) == 1 else ""
        )
        found = choose_columns(peeked, place=source.place, pair=pair, hint=hint)
        reason, unused, codes, first_row = found.why, found.unused, found.codes, found.first_row
        columns = {"source_language_column": found.source_language, "target_language_column": found.target_language}
        languages = {key: column for key, column in columns.items() if column is not None}
        first, second = (found.source if first is None else first), (found.target if second is None else second)
    named = source.model_dump(exclude_unset=True) | {"source_column": first, "target_column": second} | languages
    try:
        return Found(Source.model_validate(named), f"{why}; {reason}", unused, codes, first_row)
    except ValidationError as error:
        raise UserError(
            f"{source.place}: column `{first}` for both sides: name --source-column and --target-column"
        ) from error


def _is_quoted(path: Path) -> bool:
    """Whether a TSV file has cells in quotes, as pandas writes them."""
    lines = [line.cells[0].split("\t") for line in islice(read_lines(path), PEEKED_ROWS) if isinstance(line, Record)]
    cells = [cell for line in lines for cell in line if cell]
    in_quotes = [len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells]
    return any(map(has_doubled_quotes, cells)) or (bool(cells) and all(in_quotes))
