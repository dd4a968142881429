"""Sets evaluation rows apart from training rows, so that no source is on both sides.

A row is chosen by a hash of its source: the same whatever the order of the rows, and again if others are added. Where rows go
both ways between languages, it is a hash of both texts in any order, so that a row and its mirror are on one side.
"""

import hashlib
import heapq
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dstrain.config.data import Rules, Source
from dstrain.config.recipe import Task
from dstrain.data.sources import Row, read_rows
from dstrain.draft.sizes import count
from dstrain.errors import UserError
from dstrain.run_folder.atomic import open_new

LANGUAGE_COLUMNS = ("source_language_column", "target_language_column")

MOST_ROWS = 1000
"""Most sources that are set apart: enough for scores whose chance error is about a point."""


@dataclass(frozen=True, slots=True)
class Split:
    """Both files as JSON lines with the keys `source` and `target`, and the languages that rows name; their numbers of rows."""

    train: Path
    evaluation: Path
    num_train: int
    num_evaluation: int
    num_left_out: int = 0
    """Rows in neither file: one of their texts is in an evaluation row of the other direction."""

    def __str__(self) -> str:
        numbers = count(self.num_train, "row"), count(self.num_evaluation, "row")
        written = f"wrote {self.train} ({numbers[0]}) and {self.evaluation} ({numbers[1]})"
        if not self.num_left_out:
            return written
        return (
            f"{written}; in neither, because evaluation rows have one of their texts: {count(self.num_left_out, 'row')}"
        )


def num_apart(num_rows: int) -> int:
    """How many sources are set apart of so many rows: one in twenty, one in five of few, and at most MOST_ROWS."""
    return max(1, min(MOST_ROWS, max(num_rows // 20, min(num_rows // 5, 100))))


def split_rows(sources: Sequence[Source], *, num_rows: int, train: Path, evaluation: Path) -> Split:
    """Write the usable rows of sources to two new files.

    Raises:
        UserError: a file exists already, or all rows have one source.
    """
    for path in (train, evaluation):
        if os.path.lexists(path):
            raise UserError(f"{path} exists already: remove it, or name the evaluation rows with --eval")
    both_ways = goes_both_ways(sources)
    key = _key_of_pair if both_ways else _key_of_row
    apart = choose_apart(map(key, _rows(sources)), num=num_apart(num_rows))
    # a text that stands in several rows would else be in evaluation with one of them and in training with another
    held = {side for row in _rows(sources) if key(row) in apart for side in _sides(row)} if both_ways else set[int]()
    counts, left_out = [0, 0], 0
    with open_new(train) as train_file, open_new(evaluation) as evaluation_file:
        for row in _rows(sources):
            is_apart = key(row) in apart
            if not is_apart and not held.isdisjoint(_sides(row)):
                left_out += 1
                continue
            line = json.dumps(_values(row, sources[row.data_source]), ensure_ascii=False)
            (evaluation_file if is_apart else train_file).write(f"{line}\n".encode())
            counts[is_apart] += 1
        if counts[0] == 0:
            raise UserError("all rows have the same source: name the evaluation rows with --eval")
    return Split(train, evaluation, counts[0], counts[1], left_out)


def goes_both_ways(sources: Sequence[Source]) -> bool:
    """Whether there are rows from one language to another, and others back."""
    if not any({*LANGUAGE_COLUMNS} & source.further_columns.keys() for source in sources):
        return False
    pairs = {(row.source_language, row.target_language) for row in _rows(sources)}
    return any(source != target and (target, source) in pairs for source, target in pairs)


def choose_apart(keys: Iterable[int], *, num: int) -> set[int]:
    """The lowest of the keys, each once, at most so many; in memory for so many."""
    heap: list[int] = []
    chosen: set[int] = set()
    for key in keys:
        if key in chosen:
            continue
        if len(heap) < num:
            heapq.heappush(heap, -key)
        elif key < -heap[0]:
            chosen.remove(-heapq.heappushpop(heap, -key))
        else:
            continue
        chosen.add(key)
    return chosen


def key_of(source: str) -> int:
    """A number that sources share which differ in capitals and white space alone."""
    text = " ".join(source.casefold().split())
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _key_of_row(row: Row) -> int:
    return key_of(row.source)


def _key_of_pair(row: Row) -> int:
    return key_of("\n".join(map(str, sorted(_sides(row)))))


def _sides(row: Row) -> tuple[int, int]:
    return key_of(row.source), key_of(row.target)


def _values(row: Row, source: Source) -> dict[str, str | None]:
    """What a line holds: the texts, and the languages if the row names its own."""
    languages = {"source_language": row.source_language, "target_language": row.target_language}
    own = {key: value for key, value in languages.items() if f"{key}_column" in source.further_columns}
    return {"source": row.source, "target": row.target} | own


def _rows(sources: Sequence[Source]) -> Iterable[Row]:
    return read_rows(sources, task=Task(kind="text"), rules=Rules(undecodable="skip"), on_bad=lambda row: None)
