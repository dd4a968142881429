"""How often the words of a run's references occur in its training targets, and the file that keeps it. No torch.

The training data may be gone when a report is written, and counting them takes as long as reading them.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from dstrain.run_folder.atomic import write_file
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import read_bytes

_Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class WordCounts:
    """Counts of the words that were asked for; a word that does not occur has the count 0."""

    fingerprint: str | None
    """Of the training token set, as run.json has it."""
    num_rows: _Count
    """Training rows that were counted."""
    is_all: bool
    """Whether these are all training rows."""
    counts: Mapping[str, _Count]


_FILE = TypeAdapter(WordCounts)


def write_word_counts(folder: RunFolder, counts: WordCounts) -> None:
    """Write the counts of a run."""
    write_file(folder.word_counts, json.dumps(asdict(counts), ensure_ascii=False) + "\n")


def read_word_counts(folder: RunFolder) -> WordCounts | None:
    """The counts of a run; None if there are none, or if the file is damaged: they can be counted again."""
    try:
        found: WordCounts = _FILE.validate_json(read_bytes(folder.word_counts))
    except (OSError, ValidationError):
        return None
    return found
