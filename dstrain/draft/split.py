"""Sets evaluation rows apart from training rows, so that no source is on both sides.

A row is chosen by a hash of its source: the same whatever the order of the rows, and again if others are added.
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
from dstrain.errors import UserError
from dstrain.run_folder.atomic import open_new

MOST_ROWS = 1000
"""Most sources that are set apart: enough for scores whose chance error is about a point."""


@dataclass(frozen=True, slots=True)
class Split:
    """Both files as JSON lines with the keys `source` and `target`, and their numbers of rows."""

    train: Path
    evaluation: Path
    num_train: int
    num_evaluation: int


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
    apart = choose_apart((key_of(row.source) for row in _rows(sources)), num=num_apart(num_rows))
    counts = [0, 0]
    with open_new(train) as train_file, open_new(evaluation) as evaluation_file:
        for row in _rows(sources):
            is_apart = key_of(row.source) in apart
            line = json.dumps({"source": row.source, "target": row.target}, ensure_ascii=False)
            (evaluation_file if is_apart else train_file).write(f"{line}\n".encode())
            counts[is_apart] += 1
        if counts[0] == 0:
            raise UserError("all rows have the same source: name the evaluation rows with --eval")
    return Split(train, evaluation, counts[0], counts[1])


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


def _rows(sources: Sequence[Source]) -> Iterable[Row]:
    return read_rows(sources, task=Task(kind="text"), rules=Rules(undecodable="skip"), on_bad=lambda row: None)
