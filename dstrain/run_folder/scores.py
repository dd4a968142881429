"""Scores that were made outside of the run, found in its folder and put where they belong: by step.

The run alone writes metrics.jsonl, so another job leaves a score file, `scores/step-….json`, beside its hypotheses: of an
evaluation that the run left to it in the run folder itself, of another test set in `test_sets/NAME/`. Knows no torch.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dstrain.errors import UserError
from dstrain.run_folder.rows import DeferredRow, EvalRow, Row, RunFolderError

TEST_SETS = "test_sets"
_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Names a folder."""


@dataclass(frozen=True, slots=True)
class ScoredData:
    """The rows that were scored."""

    places: tuple[str, ...]
    """A file, a name on the hub or `demo:…` each."""
    fingerprint: str
    """A hash of their tokens."""


@dataclass(frozen=True, slots=True)
class Scores:
    """A score file. `lease` is that of the checkpoint where the run left the evaluation to another job, else 0."""

    step: int
    scores: dict[str, float]
    lease: int = 0
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    num_rows: int | None = None
    data: ScoredData | None = None
    hypotheses: str | None = None
    """Their folder, relative to that of the scores."""
    seconds: float | None = None
    warnings: tuple[str, ...] = ()


_SCORES = TypeAdapter(Scores)


def score_file(folder: Path, *, step: int) -> Path:
    """Where the scores of a step are written."""
    return folder / "scores" / f"step-{step:08d}.json"


def find_other_data(folder: Path, *, data: ScoredData) -> ScoredData | None:
    """Rows other than `data` that a score file in a folder is of; None where there is no such file."""
    read = (_read_scores(path) for path in sorted((folder / "scores").glob("step-*.json")))
    kept = (scores.data for scores in read if scores is not None and scores.data is not None)
    return next((other for other in kept if other.fingerprint != data.fingerprint), None)


def read_deferred_scores(run_dir: Path, *, due: DeferredRow) -> Scores | None:
    """The scores of an evaluation that was left to another job; None until they are there."""
    scores = _read_scores(score_file(run_dir, step=due.step))
    # an earlier start may have scored other weights at this step
    return scores if scores and (scores.step, scores.lease) == (due.step, due.lease) else None


def _read_scores(path: Path) -> Scores | None:
    try:
        scores: Scores = _SCORES.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return scores


def merge_evaluations(
    rows: Sequence[Row], *, find_scores: Callable[[DeferredRow], Scores | None]
) -> tuple[list[EvalRow], list[DeferredRow]]:
    """The evaluations among `rows`, superseded ones dropped, by step: those made, and those still due."""
    made = {row.step: row for row in rows if isinstance(row, EvalRow)}
    due = []
    for row in rows:
        if not isinstance(row, DeferredRow) or row.step in made:
            continue
        scores = find_scores(row)
        if scores is None:
            due.append(row)
        else:
            made[row.step] = as_row(scores, due=row)
    return [made[step] for step in sorted(made)], sorted(due, key=lambda row: row.step)


def as_row(scores: Scores, *, due: DeferredRow) -> EvalRow:
    """An evaluation as the run itself would have written it down."""
    return EvalRow(
        step=due.step,
        epoch=due.epoch,
        train_loss=due.train_loss,
        lease=due.lease,
        scores=scores.scores,
        groups=scores.groups,
        signatures=scores.signatures,
        generation=scores.generation,
        num_rows=scores.num_rows,
        hypotheses=scores.hypotheses,
        seconds=scores.seconds,
        warnings=scores.warnings,
    )


def folder_of_set(run_dir: Path, *, name: str) -> Path:
    """Where the scores of another test set are kept.

    Raises:
        UserError: the name cannot be that of a folder.
    """
    if not _SET_NAME.fullmatch(name):
        raise UserError(f"--as {name}: a test set is named with letters, digits, `.`, `_` and `-`")
    return run_dir / TEST_SETS / name


def read_test_sets(run_dir: Path) -> Mapping[str, tuple[Scores, ...]]:
    """Scores of other test sets by name, in the order of their steps; raises RunFolderError where a file is broken."""
    found: dict[str, list[Scores]] = {}
    for path in sorted((run_dir / TEST_SETS).glob("*/scores/step-*.json")):
        try:
            scores: Scores = _SCORES.validate_json(path.read_bytes())
        except ValidationError as error:
            fault = error.errors()[0]
            raise RunFolderError(
                f"{path}: {fault['loc']}: {fault['msg']}; score it again, or remove the file"
            ) from error
        found.setdefault(path.parents[1].name, []).append(scores)
    return {name: tuple(sorted(scores, key=lambda one: one.step)) for name, scores in found.items()}
