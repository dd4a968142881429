"""A run folder read back as values: config.yaml, run.json and metrics.jsonl in, RunRecord out. Writes the last two.

Refuses to know live objects: no torch, no model, no process group. A card can be made again on a login node.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import TypeAdapter, ValidationError

from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig

CONFIG_FILE = "config.yaml"
INFO_FILE = "run.json"
METRICS_FILE = "metrics.jsonl"
QUARANTINE_FILE = "quarantine.jsonl"
EXPORTED_STEP_FILE = "training_step.json"
EXPORTS = ("best", "final")
"""Sub-folders with a model in the Hugging Face layout."""

DURABLE_KINDS = ("eval", "event")
"""Rows synced to disk at once: they cost minutes or tell what happened. A lost training row costs a plot a point."""

Event = Literal["start", "resume", "stop", "finish", "unsaved"]
Status = Literal["finished", "stopped", "interrupted"]


class RunFolderError(ValueError):
    """A folder that is no run, or a file in it that does not hold what it should."""


@dataclass(frozen=True, slots=True)
class TrainRow:
    """One logging interval. Token counts are of the interval, `skipped_steps` of the whole run, memory is in MB."""

    step: int
    epoch: float
    loss: float
    learning_rate: float | None = None
    grad_norm: float | None = None
    loss_scale: float | None = None
    skipped_steps: int = 0
    skip_rate: float | None = None
    """Skipped steps among the steps so far."""
    halvings_in_a_row: int = 0
    """The longest run of skipped steps that touches the interval."""
    source_tokens: int = 0
    target_tokens: int = 0
    padded_source_tokens: int = 0
    padded_target_tokens: int = 0
    target_tokens_per_second: float | None = None
    data_seconds: float | None = None
    peak_memory_mb: float | None = None
    elapsed_seconds: float | None = None
    lease: int = 0
    """Number of the writer's lease on the run folder."""


@dataclass(frozen=True, slots=True)
class EvalRow:
    """One evaluation. `train_loss` is the token-weighted mean since the evaluation before; rates lie in 0..1, BLEU and
    chrF in 0..100."""

    step: int
    epoch: float
    scores: dict[str, float]
    train_loss: float | None = None
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)
    generation: dict[str, Any] = field(default_factory=dict)
    num_rows: int | None = None
    hypotheses: str | None = None
    seconds: float | None = None
    warnings: tuple[str, ...] = ()
    lease: int = 0


@dataclass(frozen=True, slots=True)
class EventRow:
    """A start, resume, stop or finish, or a checkpoint that could not be saved; `step` counts the steps trained by then."""

    event: Event
    step: int
    time: str = ""
    message: str | None = None
    lease: int = 0


Row = TrainRow | EvalRow | EventRow


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
ROWS: Mapping[str, TypeAdapter[Any]] = {
    "train": TypeAdapter(TrainRow),
    "eval": TypeAdapter(EvalRow),
    "event": TypeAdapter(EventRow),
}


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add `row` to a JSON Lines file as one line; a line torn by an earlier kill is removed first."""
    line = (json.dumps(row) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        _mend_last_line(file)
        file.write(line)
        file.flush()
        if row.get("kind") in DURABLE_KINDS:
            os.fsync(file.fileno())


def _mend_last_line(file: IO[bytes]) -> None:
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    content = file.read()
    start = content.rfind(b"\n") + 1
    if _is_whole(content[start:]):
        file.write(b"\n")
    else:
        file.truncate(start)


def _is_whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def write_run_info(run_dir: Path, info: Mapping[str, Any]) -> Path:
    """Write run.json whole or not at all and return its path; raises RunFolderError where it does not fit RunInfo."""
    path = run_dir / INFO_FILE
    _validate(INFO, value=info, where=str(path))
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
    info: RunInfo = _validate(INFO, value=content, where=str(path))
    return info


def load_record(run_dir: Path) -> RunRecord:
    """The record of a run folder, finished or not.

    Raises RunFolderError (a ValueError) naming the file and line where the folder is no run or a file is broken.
    """
    if not run_dir.is_dir():
        raise RunFolderError(f"{run_dir}: no such folder; give the run folder that `output_dir` names")
    config = load_config(str(_present(run_dir, name=CONFIG_FILE)))
    info = read_run_info(run_dir)
    rows = read_rows(_present(run_dir, name=METRICS_FILE))
    exports = {name: _exported_step(run_dir / name) for name in EXPORTS if (run_dir / name).is_dir()}
    return build_record(config, info=info, rows=rows, exports=exports, quarantine=read_quarantine(run_dir))


def read_quarantine(run_dir: Path) -> list[QuarantinedRow]:
    """The rows that a run has set aside; raises RunFolderError where the list is broken."""
    path = run_dir / QUARANTINE_FILE
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return [
        _validate(QUARANTINED, value=_parse(line, where=f"{path}:{number}"), where=f"{path}:{number}")
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
) -> RunRecord:
    """The record of `rows` in the order written, superseded training and evaluation rows dropped."""
    kept = drop_superseded(rows)
    return RunRecord(
        config=config,
        info=info,
        train_rows=tuple(row for row in kept if isinstance(row, TrainRow)),
        eval_rows=tuple(row for row in kept if isinstance(row, EvalRow)),
        events=tuple(row for row in kept if isinstance(row, EventRow)),
        exports=exports or {},
        quarantine=tuple(quarantine),
    )


def read_rows(path: Path) -> list[Row]:
    """Rows of metrics.jsonl in order. A torn last line is left out; any other broken line raises RunFolderError."""
    lines = path.read_bytes().split(b"\n")
    torn = lines.pop()  # empty where the last line is whole
    if _is_whole(torn):
        lines.append(torn)
    return [_read_row(line, where=f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def _parse(line: bytes, *, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise RunFolderError(f"{where}: no JSON ({error}); found {line[:80]!r}; mend or remove the line") from error


def _read_row(line: bytes, *, where: str) -> Row:
    content = _parse(line, where=where)
    kind = content.get("kind") if isinstance(content, dict) else None
    if not isinstance(kind, str) or kind not in ROWS:
        raise RunFolderError(
            f"{where}: `kind` must be one of {', '.join(ROWS)}; found {kind!r}; mend or remove the line"
        )
    row: Row = _validate(ROWS[kind], value=content, where=where)
    return row


def drop_superseded(rows: Sequence[Row]) -> list[Row]:
    """`rows` without the training and evaluation rows that a later start or resume went back behind.

    Of two rows of one kind at one step the later stays: a run continued after its end evaluates that step again. Rows of a
    writer that had lost the folder by then, to one with a higher lease, are dropped too.
    """
    kept: dict[tuple[type[Row], int], Row] = {}
    lease = 0
    for number, row in enumerate(rows):
        if isinstance(row, EventRow):
            if row.event in ("start", "resume"):
                kept = {key: old for key, old in kept.items() if isinstance(old, EventRow) or old.step <= row.step}
                lease = max(lease, row.lease)
            kept[EventRow, number] = row
        elif row.lease >= lease:
            kept.pop((type(row), row.step), None)
            kept[type(row), row.step] = row
    return list(kept.values())


def best_evaluation(rows: Sequence[EvalRow], *, metric: str) -> EvalRow | None:
    """The row with the best finite `metric`: the lowest for `loss`, else the highest; the older of equals."""
    sign = -1.0 if metric == "loss" else 1.0
    scored = [row for row in rows if math.isfinite(row.scores.get(metric, math.nan))]
    return max(scored, key=lambda row: sign * row.scores[metric], default=None)  # max keeps the first of equals


def _present(run_dir: Path, *, name: str) -> Path:
    path = run_dir / name
    if not path.is_file():
        needed = ", ".join((CONFIG_FILE, INFO_FILE, METRICS_FILE))
        raise RunFolderError(f"{run_dir}: no run folder, {name} is missing; a run folder holds {needed}")
    return path


def _validate(adapter: TypeAdapter[Any], *, value: Any, where: str) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault['msg']}" for fault in error.errors())
        raise RunFolderError(f"{where}: {faults}") from error
