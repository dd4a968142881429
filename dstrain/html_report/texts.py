"""Reads the texts of evaluations: rows with references, and what every evaluation made of them. Decides nothing.

Evaluations of a set mostly have the same rows. Where the data or the recipe have changed in between, rows are matched by where
they come from and by their source.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dstrain.html_report.files import UNREADABLE
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import MAX_ROWS_BYTES, read_lines
from dstrain.run_folder.row_statistics import Statistics, read_statistics
from dstrain.run_folder.scores import HYPOTHESES, INDEX, SOURCES, read_groups, reference_files

Key = tuple[str, str, int]
"""A row: `file:line`, its source, and how many rows before it have the same."""


@dataclass(frozen=True, slots=True)
class EvaluatedRows:
    """The rows of an evaluation, without what the model made of them."""

    keys: tuple[Key, ...]
    references: tuple[tuple[str, ...], ...]
    """All references of each row; one that repeats the first is left out."""
    groups: tuple[tuple[str, ...], ...]
    """Empty for each row if there are none."""


def has_texts(folder: RunFolder, *, step: int) -> bool:
    """Whether the texts of an evaluation are in the folder."""
    return (folder.hypotheses(step) / HYPOTHESES).is_file()


def read_rows(folder: RunFolder, *, step: int) -> EvaluatedRows:
    """The rows of an evaluation.

    Raises:
        OSError: a file is missing or cannot be read.
        ValueError: the files do not have as many lines as each other.
    """
    place = folder.hypotheses(step)
    keys = _read_keys(place)
    columns = [_lines(path) for path in reference_files(place)]
    groups: Sequence[Sequence[str]] = read_groups(place) or [()] * len(keys)
    _check_lengths([keys, *columns, groups], folder=place)
    references = tuple(
        (first, *dict.fromkeys(text for text in others if text != first))
        for first, *others in zip(*columns, strict=True)
    )
    return EvaluatedRows(keys, references, tuple(map(tuple, groups)))


def read_hypotheses(
    folder: RunFolder, *, step: int, keys: Sequence[Key]
) -> tuple[list[str | None], list[int | None], int]:
    """The hypotheses of an evaluation for the rows `keys`, None for those that it did not have; their places in it; its rows.

    Raises as `read_rows`.
    """
    place = folder.hypotheses(step)
    own, texts = _read_keys(place), _lines(place / HYPOTHESES)
    _check_lengths([own, texts], folder=place)
    places = {key: number for number, key in enumerate(own)}
    found = [places.get(key) for key in keys]
    return [None if number is None else texts[number] for number in found], found, len(own)


def read_row_statistics(folder: RunFolder, *, step: int) -> Statistics:
    """The numbers of each row by score; empty where they are missing or damaged, since a report can do without."""
    try:
        return read_statistics(folder, step=step)
    except UNREADABLE:
        return {}


def count_bytes(folder: RunFolder, *, steps: Sequence[int]) -> int:
    """The size of the hypotheses of these evaluations, and of one copy of the sources and references."""
    if not steps:
        return 0
    newest = folder.hypotheses(steps[-1])
    paths = [folder.hypotheses(step) / HYPOTHESES for step in steps] + [newest / SOURCES, *reference_files(newest)]
    return sum(map(_size, paths))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # whoever reads it says so
        return 0


def _check_lengths(columns: Sequence[Sequence[object]], *, folder: Path) -> None:
    """Raises ValueError unless all columns have as many rows."""
    lengths = sorted({len(column) for column in columns})
    if len(lengths) > 1:
        raise ValueError(f"{folder.name}: its files have {' and '.join(map(str, lengths))} rows: score it again")


def _read_keys(place: Path) -> tuple[Key, ...]:
    seen = Counter[tuple[str, str]]()
    index, sources = _lines(place / INDEX), _lines(place / SOURCES)
    _check_lengths([index, sources], folder=place)
    keys = []
    for where, source in zip(index, sources, strict=True):
        keys.append((where, source, seen[where, source]))
        seen[where, source] += 1
    return tuple(keys)


def _lines(path: Path) -> list[str]:
    *lines, _ = read_lines(path, max_bytes=MAX_ROWS_BYTES)
    return [line.decode("utf-8", errors="replace") for line in lines]
