"""A run folder read back as one value, RunRecord: configuration, run.json, rows, scores and quarantine. Writes run.json.

Knows no live objects: no torch, no model, no process group. So a card can be made on a login node.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from dstrain.config.schema import RunConfig
from dstrain.run_folder.atomic import no_ordinary_file, write_file
from dstrain.run_folder.audit import Audit, read_audit
from dstrain.run_folder.average import Average, read_average
from dstrain.run_folder.base import BaseRun
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.external import with_external
from dstrain.run_folder.find import find_run
from dstrain.run_folder.layout import MODELS, RunFolder
from dstrain.run_folder.outcome import RunOutcome, read_ends, read_unwritten
from dstrain.run_folder.reading import (
    RunFolderError,
    parse_json,
    read_bytes,
    read_exported_step,
    read_lines,
    validate,
)
from dstrain.run_folder.rows import (
    DeferredRow,
    EvalRow,
    EventRow,
    Row,
    TrainRow,
    best_evaluation,
    competing,
    drop_superseded,
    read_rows,
    untied,
)
from dstrain.run_folder.scores import ScoreFile, read_score_file, read_test_sets

CountedPairs = Sequence[tuple[str | None, str | None, str, int]]
"""Languages and prefix of training rows, and how many rows of an epoch have them: those of the most rows first."""

Status = Literal["finished", "stopped", "interrupted"]


@dataclass(frozen=True, slots=True)
class DataReport:
    """How many rows of one set were read, used, skipped and cut."""

    rows_read: int | None = None
    rows: int | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    truncated: int | None = None
    kept_with_unknown: int | None = None
    cut_by_reference: int | None = None
    """Evaluation rows whose source was cut at the words of their reference."""
    source_tokens: int | None = None
    target_tokens: int | None = None
    source_unknown: int | None = None
    """Tokens of sources that are not in the vocabulary, in the distinct rows."""
    target_unknown: int | None = None
    not_given_back: int | None = None
    """References of which the tokenizer gives back another text."""
    fingerprint: str | None = None
    sources: tuple[str, ...] = ()
    """Hashes of the content of each source and of how it is read, whatever the tokenizer."""
    pairs: tuple[tuple[str | None, str | None, str, int], ...] = ()
    """Languages and prefix of the rows, and how many rows of an epoch have them: those of the most rows first."""
    passes: tuple[float, ...] = ()
    """How often an epoch passes over the rows of each source, where the recipe mixes them by weight or temperature."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What was trained; `origin` says whether `base` is a hub name."""

    base: str | None = None
    architecture: str | None = None
    passed_self_test: bool | None = None
    """True for an architecture of no supported family, which trains only if it has passed; None for others."""
    num_parameters: int | None = None
    """Those that the model had in training."""
    num_exported_parameters: int | None = None
    """Those of the exported models, which have all rows of the embeddings again."""
    num_trained_parameters: int | None = None
    """Those that were trained, where the recipe freezes a part of the model."""
    new_tokens: int | None = None
    """Tokens whose rows were trained where the other rows of the embeddings were frozen."""
    trained_embedding_rows: int | None = None
    """Rows of the input embedding that had gradients, where not all had."""
    trained_ids: int | None = None
    """Token ids that the model had rows for in training; None: all."""
    num_ids: int | None = None
    """Token ids of the tokenizer, where not all were trained."""
    origin: Literal["hub", "folder", "scratch"] | None = None
    from_run: BaseRun | None = None
    """The run whose weights it began with, if `model.from_run` names one."""


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
    """run.json: the machine, the data and the model as the newest attempt found them."""

    versions: dict[str, str | None] = field(default_factory=dict)
    command: tuple[str, ...] | str | None = None
    """The words of the command that started the newest attempt; earlier versions wrote them as one text."""
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
    """A row that training leaves out because no step with it could be applied."""

    row: int
    """Its number in the training token set."""
    step: int
    """The first step that was refused because of it."""
    reason: str
    where: str
    """`file:line`."""
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything that a report can say about a run. Rows that a later attempt repeated are gone; all events are kept."""

    config: RunConfig
    info: RunInfo
    train_rows: tuple[TrainRow, ...]
    eval_rows: tuple[EvalRow, ...]
    events: tuple[EventRow, ...]
    exports: Mapping[str, int | None] = field(default_factory=dict)
    """The exported models by name, with the step of their weights; None if the folder does not say."""
    quarantine: tuple[QuarantinedRow, ...] = ()
    """Rows that training leaves out."""
    pending_rows: tuple[DeferredRow, ...] = ()
    """Evaluations left to other jobs that have no scores yet."""
    test_sets: Mapping[str, tuple[ScoreFile, ...]] = field(default_factory=dict)
    """Scores of other test sets by name, in the order of their steps."""
    average: Average | None = None
    """The mean of several checkpoints, if it was scored."""
    audit: Audit | None = None
    """What was found in the data; None if an earlier version made the run."""
    ends: Mapping[int, RunOutcome] = field(default_factory=dict)
    """How attempts ended, by the number of their lease."""
    unwritten: Mapping[int, int] = field(default_factory=dict)
    """Attempts whose rows are missing from a step on, because they could not be written."""
    subject: str | None = None
    """The model folder that a report is about, a name in `exports` or that of the average; None: it is about the run."""

    @property
    def best(self) -> EvalRow | None:
        """The best evaluation by the recipe's metrics, or None before the first."""
        return best_evaluation(untied(self.competing), metrics=self.config.ranking)

    @property
    def competing(self) -> tuple[EvalRow, ...]:
        """The evaluations that the best is chosen from."""
        return competing(self.eval_rows, events=self.events)

    @property
    def final(self) -> EvalRow | None:
        """The last evaluation, or None before the first."""
        return self.eval_rows[-1] if self.eval_rows else None

    @property
    def status(self) -> Status:
        """`finished`, `stopped` on request, or `interrupted` (running, or killed)."""
        last = next((row.event for row in reversed(self.events) if row.event != "unsaved"), None)
        if last == "finish":
            return "finished"
        return "stopped" if last == "stop" else "interrupted"

    @property
    def last_step(self) -> int:
        """The last optimizer step that a row belongs to."""
        rows: list[Row] = [*self.train_rows[-1:], *self.eval_rows[-1:], *self.events[-1:]]
        return max((row.step for row in rows), default=0)


INFO = TypeAdapter(RunInfo)
QUARANTINED = TypeAdapter(QuarantinedRow)


def write_run_info(run_dir: Path, info: Mapping[str, Any]) -> Path:
    """Write run.json and return its path; raises RunFolderError where `info` does not fit RunInfo."""
    path = RunFolder(run_dir).info
    validate(INFO, value=info, where=str(path))
    write_file(path, json.dumps(info, indent=2) + "\n", durable=True)
    return path


def read_run_info(run_dir: Path) -> RunInfo:
    """run.json of a run folder; raises RunFolderError where it is absent or damaged."""
    path = _existing(RunFolder(run_dir).info)
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{path}: not JSON ({error}); start the run again, which writes it") from error
    info: RunInfo = validate(INFO, value=content, where=str(path))
    return info


def counted_pairs(folder: RunFolder) -> CountedPairs:
    """The pairs of a run's training rows; empty where an earlier version made the run, or the record is lost."""
    try:
        data = read_run_info(folder.path).data
    except RunFolderError:
        return ()
    return data["train"].pairs if "train" in data else ()


def load_record(run_dir: Path) -> RunRecord:
    """The record of a run folder, finished or not.

    Raises:
        RunFolderError: it is not a run folder, or a file in it is damaged; the message names file and line.
    """
    folder = find_run(run_dir)
    config = read_run_config(folder)
    info = read_run_info(run_dir)
    rows = read_rows(_existing(folder.metrics))
    exports = {name: read_exported_step(folder.model(name)) for name in MODELS if folder.model(name).is_dir()}
    record = build_record(
        config,
        info=info,
        rows=rows,
        exports=exports,
        quarantine=read_quarantine(run_dir),
        find_scores=lambda row: read_deferred_scores(folder, row=row),
        test_sets={
            name: tuple(with_external(each, folder=folder.test_set(name), step=each.step) for each in scores)
            for name, scores in read_test_sets(folder).items()
        },
        average=read_average(folder),
        ends=read_ends(run_dir),
        unwritten=read_unwritten(run_dir),
    )
    return replace(
        record,
        eval_rows=tuple(with_external(row, folder=folder, step=row.step) for row in record.eval_rows),
        audit=read_audit(folder),
    )


def write_quarantine(run_dir: Path, rows: Sequence[QuarantinedRow]) -> None:
    """Replace the list of the rows that a run leaves out."""
    lines = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
    # half a surrogate pair in a row must not keep the row off the list
    write_file(RunFolder(run_dir).quarantine, lines.encode("utf-8", errors="backslashreplace"))


def read_quarantine(run_dir: Path) -> list[QuarantinedRow]:
    """The rows that a run leaves out; raises RunFolderError where the list is damaged."""
    path = RunFolder(run_dir).quarantine
    lines = read_lines(path) if os.path.lexists(path) else ()
    return [
        validate(QUARANTINED, value=parse_json(line, where=f"{path}:{number}"), where=f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line
    ]


def read_deferred_scores(folder: RunFolder, *, row: DeferredRow) -> ScoreFile | None:
    """The scores of an evaluation that was left to another job; None until they exist."""
    scores = read_score_file(folder, step=row.step)
    # an earlier attempt may have scored other weights at this step
    return scores if scores and (scores.step, scores.lease) == (row.step, row.lease) else None


def merge_evaluations(
    rows: Sequence[Row], *, find_scores: Callable[[DeferredRow], ScoreFile | None]
) -> tuple[list[EvalRow], list[DeferredRow]]:
    """The evaluations among `rows`, superseded ones dropped, by step: those with scores, and those still pending."""
    scored = {row.step: row for row in rows if isinstance(row, EvalRow)}
    pending = []
    for row in rows:
        if not isinstance(row, DeferredRow) or row.step in scored:
            continue
        scores = find_scores(row)
        if scores is None:
            pending.append(row)
        else:
            scored[row.step] = EvalRow(**scores.as_fields() | asdict(row))
    return [scored[step] for step in sorted(scored)], sorted(pending, key=lambda row: row.step)


def build_record(
    config: RunConfig,
    *,
    info: RunInfo,
    rows: Sequence[Row],
    exports: Mapping[str, int | None] | None = None,
    quarantine: Sequence[QuarantinedRow] = (),
    find_scores: Callable[[DeferredRow], ScoreFile | None] = lambda row: None,
    test_sets: Mapping[str, tuple[ScoreFile, ...]] | None = None,
    average: Average | None = None,
    ends: Mapping[int, RunOutcome] | None = None,
    unwritten: Mapping[int, int] | None = None,
) -> RunRecord:
    """The record of `rows` in the order written, superseded training and evaluation rows dropped."""
    kept = drop_superseded(rows)
    evaluations, pending = merge_evaluations(kept, find_scores=find_scores)
    return RunRecord(
        config=config,
        info=info,
        train_rows=tuple(row for row in kept if isinstance(row, TrainRow)),
        eval_rows=tuple(evaluations),
        events=tuple(row for row in kept if isinstance(row, EventRow)),
        exports=exports or {},
        quarantine=tuple(quarantine),
        pending_rows=tuple(pending),
        test_sets=test_sets or {},
        average=average,
        ends=ends or {},
        unwritten=unwritten or {},
    )


def _existing(path: Path) -> Path:
    if not path.is_file():
        folder = RunFolder(path.parent)
        needed = ", ".join(each.name for each in (folder.config, folder.info, folder.metrics))
        raise RunFolderError(f"{folder.path}: not a run folder, {path.name} is missing; a run folder holds {needed}")
    if path.is_symlink():
        raise RunFolderError(f"{path}: {no_ordinary_file(path).strerror}")
    return path
