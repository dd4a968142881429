"""What a run tells of itself while it runs, row by row: metrics.jsonl and its kinds of rows, written and read.

Refuses to know what is made of them, and live objects: no torch, no model, no process group.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import TypeAdapter, ValidationError

from dstrain.errors import UserError

METRICS_FILE = "metrics.jsonl"

DURABLE_KINDS = ("eval", "due", "event")
"""Rows synced to disk at once: they cost minutes or tell what happened. A lost training row costs a plot a point."""

Event = Literal["start", "resume", "stop", "finish", "unsaved"]


class RunFolderError(UserError):
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


@dataclass(frozen=True, slots=True)
class DeferredRow:
    """An evaluation that another job makes, on the checkpoint of this step and lease; `train_loss` as in EvalRow."""

    step: int
    epoch: float
    train_loss: float | None = None
    lease: int = 0


Row = TrainRow | EvalRow | DeferredRow | EventRow

ROWS: Mapping[str, TypeAdapter[Any]] = {
    "train": TypeAdapter(TrainRow),
    "eval": TypeAdapter(EvalRow),
    "due": TypeAdapter(DeferredRow),
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


def read_rows(path: Path) -> list[Row]:
    """Rows of metrics.jsonl in order. A torn last line is left out; any other broken line raises RunFolderError."""
    lines = path.read_bytes().split(b"\n")
    torn = lines.pop()  # empty where the last line is whole
    if _is_whole(torn):
        lines.append(torn)
    return [_read_row(line, where=f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def _read_row(line: bytes, *, where: str) -> Row:
    content = parse_json(line, where=where)
    kind = content.get("kind") if isinstance(content, dict) else None
    if not isinstance(kind, str) or kind not in ROWS:
        raise RunFolderError(
            f"{where}: `kind` must be one of {', '.join(ROWS)}; found {kind!r}; mend or remove the line"
        )
    row: Row = validate(ROWS[kind], value=content, where=where)
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


def parse_json(line: bytes, *, where: str) -> Any:
    """The value of a line; raises RunFolderError naming `where` it stands."""
    try:
        return json.loads(line)
    except ValueError as error:
        raise RunFolderError(f"{where}: no JSON ({error}); found {line[:80]!r}; mend or remove the line") from error


def validate(adapter: TypeAdapter[Any], *, value: Any, where: str) -> Any:
    """`value` as the adapter's type; raises RunFolderError naming every fault and `where` it stands."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault['msg']}" for fault in error.errors())
        raise RunFolderError(f"{where}: {faults}") from error
