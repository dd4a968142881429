"""Scores that other programs have computed from the texts of an evaluation, in files beside its own scores."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from dstrain.run_folder.atomic import write_file
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import read_bytes
from dstrain.run_folder.scores import Scores

AnyScores = TypeVar("AnyScores", bound=Scores)


@dataclass(frozen=True, slots=True)
class ExternalScore:
    """A score, and the command that printed it, which is its signature."""

    value: float
    command: str


_FILE = TypeAdapter(dict[str, ExternalScore])


def add_external(folder: RunFolder, *, step: int, name: str, score: ExternalScore) -> None:
    """Add a score to those of a step; one process at a time may write there."""
    scores = {**read_external(folder, step=step), name: score}
    values = {each: asdict(found) for each, found in scores.items()}
    write_file(folder.external_file(step), json.dumps(values, ensure_ascii=False, indent=2) + "\n")


def read_external(folder: RunFolder, *, step: int) -> Mapping[str, ExternalScore]:
    """The scores of a step by name; empty if there are none, or if the file is damaged."""
    try:
        found: dict[str, ExternalScore] = _FILE.validate_json(read_bytes(folder.external_file(step)))
    except (OSError, ValidationError):
        return {}
    return found


def with_external(scores: AnyScores, *, folder: RunFolder, step: int) -> AnyScores:
    """The scores of a step together with those that other programs have computed."""
    found = read_external(folder, step=step)
    return replace(
        scores,
        scores=scores.scores | {name: score.value for name, score in found.items()},
        signatures=scores.signatures | {name: score.command for name, score in found.items()},
    )
