"""What each row adds to the scores of an evaluation, in a file beside its hypotheses: enough to compute them over any rows.

A line holds the numbers of a row by score, in the order of the hypotheses: `{"bleu": [9, 9, 8, 5, 3, 2, 9, 8, 7, 6]}`. It is
text, to be read beside the hypotheses; and reading a stranger's file runs nothing, and takes memory by its size.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import MAX_ROWS_BYTES, RunFolderError, read_lines

STATISTICS = "statistics.jsonl"
"""File in the folder of an evaluation's hypotheses."""
MAX_NUMBERS = 100
"""Most numbers of a row in one score; sacreBLEU's chrF has 18."""

Statistics = Mapping[str, Sequence[Sequence[float]]]
"""By score the numbers of each row that counts in it, in the order of the rows: for an evaluation set (`flores/bleu`) its own."""

_Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e15, le=1e15)]
_LINE = TypeAdapter(dict[str, Annotated[tuple[_Number, ...], Field(min_length=1, max_length=MAX_NUMBERS)]])


def statistics_lines(rows: Iterable[Mapping[str, Sequence[float]]]) -> list[str]:
    """A line of the file for each row, which names the scores that the row counts in."""
    return [json.dumps({name: list(numbers) for name, numbers in row.items()}) for row in rows]


def read_statistics(folder: RunFolder, *, step: int) -> Statistics:
    """The row statistics of a step; empty if it has none, as evaluations of earlier versions.

    Raises:
        RunFolderError: the file is damaged; the message names the line.
        OSError: it cannot be read, is not an ordinary file or is too large.
    """
    path = folder.hypotheses(step) / STATISTICS
    if not os.path.lexists(path):
        return {}
    found: dict[str, list[tuple[float, ...]]] = {}
    for number, line in enumerate(read_lines(path, max_bytes=MAX_ROWS_BYTES), start=1):
        if line:
            for name, numbers in _read(line, where=f"{path}:{number}").items():
                found.setdefault(name, []).append(numbers)
                if len(numbers) != len(found[name][0]):
                    raise RunFolderError(
                        f"{path}:{number}: `{name}` has not as many numbers as before: remove the file"
                    )
    return found


def differing_rows(one: Sequence[Path], other: Sequence[Path]) -> tuple[int, list[int]]:
    """The number of lines, and those, from 1, in which files of texts differ; one that a side lacks is one of them.

    Args:
        one: the files of one evaluation, such as those of its references; as many as `other`.

    Raises:
        OSError: a file cannot be read.
    """
    num_rows, differing = 0, set[int]()
    for paths in zip(one, other, strict=True):
        lines = zip_longest(*(_lines(path) for path in paths))
        for number, (left, right) in enumerate(lines, start=1):
            num_rows = max(num_rows, number)
            if left != right:
                differing.add(number)
    return num_rows, sorted(differing)


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a file, without what follows the last line break."""
    return (line for line, _ in pairwise(read_lines(path, max_bytes=MAX_ROWS_BYTES)))


def _read(line: bytes, *, where: str) -> dict[str, tuple[float, ...]]:
    try:
        found: dict[str, tuple[float, ...]] = _LINE.validate_json(line)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "value"
        raise RunFolderError(f"{where}: {place}: {fault['msg']}: score it again, or remove the file") from error
    return found
