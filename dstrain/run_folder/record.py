"""A run folder read back as values: config.yaml, run.json, rows and scores in, RunRecord out. Writes run.json.

Refuses to know live objects: no torch, no model, no process group. A card can be made again on a login node.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.run_folder.rows import (
    METRICS_FILE,
    DeferredRow,
    EvalRow,
    EventRow,
    Row,
    RunFolderError,
    TrainRow,
    best_evaluation,
    drop_superseded,
    parse_json,
    read_rows,
    validate,
)
from dstrain.run_folder.scores import Scores, merge_evaluations, read_deferred_scores, read_test_sets

CONFIG_FILE = "config.yaml"
INFO_FILE = "run.json"
QUARANTINE_FILE = "quarantine.jsonl"
EXPORTED_STEP_FILE = "training_step.json"
EXPORTS = ("best", "final")
"""Sub-folders with a model in the Hugging Face layout."""

Status = Literal["finished", "stopped", "interrupted"]


@dataclass(frozen=True, slots=True)
class DataReport:
    """What became of the rows of one set."""

    rows_read: int | None = None
    rows: int | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    truncated: int | None = None
    kept_with_unknown: int | None = None
    source_tokens: int | None = None
    target_tokens: int | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What was trained; `origin` says whether `base` is a hub name."""

    base: str | None = None
    architecture: str | None = None
    num_parameters: int | None = None
    origin: Literal["hub", "folder", "scratch"] | None = None


@dataclass(frozen=True, slots=True)
class MicroBatches:
    """Micro-batches of a step over all ranks, and the most sequences one of them holds, in the first `num_steps`."""

    min: int | None = None
    max: int | None = None
    mean: float | None = None
    largest_rows: int | None = None
    num_steps: int | None = None


@dataclass(frozen=True, slots=True)
class RunInfo:
    """run.json: the machine, the data and the model as the run found them at its last start."""

    versions: dict[str, str | None] = field(default_factory=dict)
    command: str | None = None
    world_size: int | None = None
    device: str | None = None
    launcher: str | None = None
    data: dict[str, DataReport] = field(default_factory=dict)
    model: ModelInfo = field(default_factory=ModelInfo)
    total_steps: int | None = None
    steps_per_epoch: int | None = None
    micro_batches: MicroBatches = field(default_factory=MicroBatches)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A row that training did without, because no step with it could be applied; `where` is file:line."""

    where: str
    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything that a report may say of a run. Rows that a resumed run went back behind are gone; no event is."""

    config: RunConfig
    info: RunInfo
    train_rows: tuple[TrainRow, ...]
    eval_rows: tuple[EvalRow, ...]
    events: tuple[EventRow, ...]
    exports: Mapping[str, int | None] = field(default_factory=dict)
    """Which of EXPORTS the run folder holds, with the step of the weights as far as the folder says it."""
    quarantine: tuple[QuarantinedRow, ...] = ()
    """Rows that training did without."""
    pending_rows: tuple[DeferredRow, ...] = ()
    """Evaluations left to other jobs that have given no scores yet."""
    test_sets: Mapping[str, tuple[Scores, ...]] = field(default_factory=dict)
    """Scores of other test sets by name, in the order of their steps."""

    @property
    def best(self) -> EvalRow | None:
        """The best evaluation by the recipe's metric, or None before the first."""
        return best_evaluation(self.eval_rows, metric=self.config.best_metric)

    @property
    def final(self) -> EvalRow | None:
        """The last evaluation, or None before the first."""
        return self.eval_rows[-1] if self.eval_rows else None

    @property
    def status(self) -> Status:
        """`finished`, `stopped` on request, or `interrupted` (running, or killed without a word)."""
        last = next((row.event for row in reversed(self.events) if row.event != "unsaved"), None)
        if last == "finish":
            return "finished"
        return "stopped" if last == "stop" else "interrupted"

    @property
    def last_step(self) -> int:
        """The last optimizer step that a row tells of."""
        rows: list[Row] = [*self.train_rows[-1:], *self.eval_rows[-1:], *self.events[-1:]]
        return max((row.step for row in rows), default=0)


INFO = TypeAdapter(RunInfo)
QUARANTINED = TypeAdapter(QuarantinedRow)


def write_run_info(run_dir: Path, info: Mapping[str, Any]) -> Path:
    """Write run.json whole or not at all and return its path; raises RunFolderError where it does not fit RunInfo."""
    path = run_dir / INFO_FILE
    validate(INFO, value=info, where=str(path))
    run_dir.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{INFO_FILE}.tmp-{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(info, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())  # else the rename may reach the disk before the content
    temporary.replace(path)
    return path


def read_run_info(run_dir: Path) -> RunInfo:
    """run.json of a run folder; raises RunFolderError where it is absent or broken."""
    path = _present(run_dir, name=INFO_FILE)
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunFolderError(f"{path}: no JSON ({error}); start the run again to have it written") from error
    info: RunInfo = validate(INFO, value=content, where=str(path))
    return info


def load_record(run_dir: Path) -> RunRecord:
    """The record of a run folder, finished or not.

    Raises RunFolderError naming the file and line where the folder is no run or a file is broken.
    """
    if not run_dir.is_dir():
        raise RunFolderError(f"{run_dir}: no such folder; give the run folder that `output_dir` names")
    config = load_config(str(_present(run_dir, name=CONFIG_FILE)))
    info = read_run_info(run_dir)
    rows = read_rows(_present(run_dir, name=METRICS_FILE))
    exports = {name: _exported_step(run_dir / name) for name in EXPORTS if (run_dir / name).is_dir()}
    return build_record(
        config,
        info=info,
        rows=rows,
        exports=exports,
        quarantine=read_quarantine(run_dir),
        find_scores=lambda due: read_deferred_scores(run_dir, due=due),
        test_sets=read_test_sets(run_dir),
    )


def read_quarantine(run_dir: Path) -> list[QuarantinedRow]:
    """The rows that a run has set aside; raises RunFolderError where the list is broken."""
    path = run_dir / QUARANTINE_FILE
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return [
        validate(QUARANTINED, value=parse_json(line, where=f"{path}:{number}"), where=f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
    ]


def _exported_step(folder: Path) -> int | None:
    try:
        return int(json.loads((folder / EXPORTED_STEP_FILE).read_bytes())["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def build_record(
    config: RunConfig,
    *,
    info: RunInfo,
    rows: Sequence[Row],
    exports: Mapping[str, int | None] | None = None,
    quarantine: Sequence[QuarantinedRow] = (),
    find_scores: Callable[[DeferredRow], Scores | None] = lambda due: None,
    test_sets: Mapping[str, tuple[Scores, ...]] | None = None,
) -> RunRecord:
    """The record of `rows` in the order written, superseded training and evaluation rows dropped."""
    kept = drop_superseded(rows)
    evaluations, due = merge_evaluations(kept, find_scores=find_scores)
    return RunRecord(
        config=config,
        info=info,
        train_rows=tuple(row for row in kept if isinstance(row, TrainRow)),
        eval_rows=tuple(evaluations),
        events=tuple(row for row in kept if isinstance(row, EventRow)),
        exports=exports or {},
        quarantine=tuple(quarantine),
        pending_rows=tuple(due),
        test_sets=test_sets or {},
    )


def _present(run_dir: Path, *, name: str) -> Path:
    path = run_dir / name
    if not path.is_file():
        needed = ", ".join((CONFIG_FILE, INFO_FILE, METRICS_FILE))
        raise RunFolderError(f"{run_dir}: no run folder, {name} is missing; a run folder holds {needed}")
    return path
