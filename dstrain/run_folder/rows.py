"""The rows of metrics.jsonl, by kind: written while a run trains, read by everything that reports on it.

Knows no live objects: no torch, no model, no process group.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from dstrain.run_folder.atomic import append_line, is_json
from dstrain.run_folder.ranking import rank
from dstrain.run_folder.reading import MAX_ROWS_BYTES, RunFolderError, parse_json, read_lines, validate
from dstrain.run_folder.scores import Scores

DURABLE_KINDS = ("eval", "due", "event")
"""Kinds of rows that are synced to disk at once. A lost training row only costs a point in a plot."""

MAX_STEP = 2**63 - 1
"""A larger step can only come from a damaged file."""

Event = Literal["start", "resume", "stop", "finish", "unsaved"]


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
    """The longest sequence of skipped steps that ends in the interval or continues after it."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRow(Scores):
    """One evaluation of a run. `train_loss` is the token-weighted mean since the previous evaluation."""

    step: int
    epoch: float
    train_loss: float | None = None
    lease: int = 0
    is_tied: bool = False
    """Whether it was better than the best so far, but not beyond chance: with `evaluation.best_by: tied_keeps_older` alone."""


@dataclass(frozen=True, slots=True)
class EventRow:
    """A start, resume, stop or finish, or a checkpoint that could not be saved; `step` is the number of steps trained."""

    event: Event
    step: int
    time: str = ""
    message: str | None = None
    lease: int = 0
    changes: tuple[str, ...] = ()
    """Of a resume: what the user allowed to change, and what was reset because of it."""
    scores_since: int = 0
    """Of a start or resume: the attempt from which on evaluations compete for the best."""


@dataclass(frozen=True, slots=True)
class DeferredRow:
    """An evaluation that is left to another job, of the checkpoint of this step and lease; `train_loss` as in EvalRow."""

    step: int
    epoch: float
    train_loss: float | None = None
    lease: int = 0


Row = TrainRow | EvalRow | DeferredRow | EventRow

KINDS: Mapping[str, type[Row]] = {"train": TrainRow, "eval": EvalRow, "due": DeferredRow, "event": EventRow}
"""`kind` in metrics.jsonl to the type of row."""

ROWS: Mapping[str, TypeAdapter[Any]] = {kind: TypeAdapter(row) for kind, row in KINDS.items()}


def as_json(row: Row) -> dict[str, Any]:
    """A row as it is written to metrics.jsonl; the writer adds its lease."""
    kind = next(kind for kind, each in KINDS.items() if type(row) is each)
    values = {name: value for name, value in asdict(row).items() if name != "lease"}
    return {"kind": kind} | values


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add `row` to metrics.jsonl as one line."""
    append_line(path, json.dumps(row), durable=row.get("kind") in DURABLE_KINDS)


def read_rows(path: Path) -> list[Row]:
    """Rows of metrics.jsonl in order. A torn last line is skipped; any other broken line raises RunFolderError."""
    *lines, torn = read_lines(path, max_bytes=MAX_ROWS_BYTES)
    if is_json(torn):  # empty if the last line is complete
        lines.append(torn)
    return [_read_row(line, where=f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def read_sound_rows(path: Path) -> tuple[list[Row], list[str]]:
    """Rows of metrics.jsonl in order, and notes on what could not be read, which is skipped; a torn last line needs no note."""
    try:
        *lines, torn = read_lines(path, max_bytes=MAX_ROWS_BYTES) if os.path.lexists(path) else [b""]
    except OSError as error:
        return [], [f"{path.name} cannot be read: {error.strerror}"]
    read = [_read_sound_row(line) for line in lines]
    broken = [number for number, row in enumerate(read, start=1) if row is None]
    notes = [f"{path.name}: {len(broken)} broken line(s) skipped, the first is line {broken[0]}"] if broken else []
    return [row for row in [*read, _read_sound_row(torn)] if row is not None], notes


def _read_sound_row(line: bytes) -> Row | None:
    try:
        content: Any = json.loads(line)
        row: Row = ROWS[content["kind"]].validate_python(content)
    except (ValueError, RecursionError, KeyError, TypeError):
        return None
    return row if 0 <= row.step <= MAX_STEP else None


def _read_row(line: bytes, *, where: str) -> Row:
    content = parse_json(line, where=where)
    kind = content.get("kind") if isinstance(content, dict) else None
    if not isinstance(kind, str) or kind not in ROWS:
        raise RunFolderError(
            f"{where}: `kind` must be one of {', '.join(ROWS)}; found {kind!r}; correct or remove the line"
        )
    row: Row = validate(ROWS[kind], value=content, where=where)
    return row


def drop_superseded(rows: Sequence[Row]) -> list[Row]:
    """`rows` without the training and evaluation rows that a later attempt repeated from an earlier step.

    Of two rows of one kind at one step the later stays: a run that is continued after its end evaluates that step again.
    Rows of a writer that had already lost the folder to a higher lease are dropped as well.
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


def competing(rows: Sequence[EvalRow], *, events: Sequence[EventRow]) -> tuple[EvalRow, ...]:
    """The evaluations whose scores can be compared: none from before a change of metric, search or rows."""
    starts = (event for event in reversed(events) if event.event in ("start", "resume"))
    since = next((event.scores_since for event in starts), 0)
    return tuple(row for row in rows if row.lease >= since)


def untied(rows: Sequence[EvalRow]) -> tuple[EvalRow, ...]:
    """The evaluations that the best is one of: all others have either taken the place of the best so far or are no better."""
    return tuple(row for row in rows if not row.is_tied)


def best_evaluation(rows: Sequence[EvalRow], *, metrics: Sequence[str]) -> EvalRow | None:
    """The row that is best by the first of `metrics`, which must be finite; the others break ties. Of equal rows the older."""
    scored = [row for row in rows if math.isfinite(row.scores.get(metrics[0], math.nan))]
    return max(scored, key=lambda row: rank(row.scores, metrics=metrics), default=None)  # max keeps the first of equals
