"""The average of a run's checkpoints in its folder: which steps were averaged, and the scores. No torch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from dstrain.run_folder.atomic import write_file
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import read_bytes
from dstrain.run_folder.scores import ScoreFile, read_score_file

AVERAGED = "averaged_steps.json"
"""File in the model folder of an average: the steps of its checkpoints. Such a model cannot be resumed from."""

_STEPS = TypeAdapter(Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, strict=False)])


@dataclass(frozen=True, slots=True)
class Average:
    """The scores of the mean of several checkpoints' weights."""

    steps: tuple[int, ...]
    """Ascending."""
    scores: ScoreFile


def write_averaged_steps(folder: Path, *, steps: Sequence[int]) -> None:
    """Write the steps into a model folder that is being made."""
    write_file(folder / AVERAGED, json.dumps(list(steps)) + "\n")


def read_average(folder: RunFolder) -> Average | None:
    """The average in a run folder; None if there is none with scores, or if its files are damaged."""
    try:
        steps: tuple[int, ...] = _STEPS.validate_json(read_bytes(folder.average.path / AVERAGED))
    except (OSError, ValidationError):
        return None
    scores = read_score_file(folder.average, step=max(steps))
    return None if scores is None else Average(steps, scores)
