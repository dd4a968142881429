"""Reads what a report needs of a run folder, whatever the run is doing and whatever of it is missing. Writes nothing.

Only the configuration must be there: a folder that has it is a run folder. What else cannot be read is left out, and a note says
so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from dstrain.checkpoint.store import current_dirs, parse_checkpoint_name
from dstrain.errors import UserError
from dstrain.run_folder.audit import read_audit
from dstrain.run_folder.average import read_average
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.claims import Claim, read_claims
from dstrain.run_folder.external import with_external
from dstrain.run_folder.layout import MODELS, RunFolder
from dstrain.run_folder.outcome import read_ends, read_unwritten
from dstrain.run_folder.reading import find_run, read_exported_step
from dstrain.run_folder.record import (
    RunInfo,
    RunRecord,
    build_record,
    read_deferred_scores,
    read_quarantine,
    read_run_info,
)
from dstrain.run_folder.rows import Row, read_sound_rows
from dstrain.run_folder.scores import ScoreFile, read_test_sets
from dstrain.run_folder.word_counts import WordCounts, read_word_counts

UNREADABLE = (UserError, OSError, ValueError, RecursionError)
"""What reading a broken file may raise."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The content of a run folder, as far as it could be read."""

    folder: RunFolder
    record: RunRecord
    rows: tuple[Row, ...]
    """All of metrics.jsonl, also those that a later attempt repeated."""
    claims: tuple[Claim, ...]
    """One per attempt, the newest last."""
    saved: tuple[int, ...]
    """Steps whose checkpoints are kept, ascending."""
    word_counts: WordCounts | None
    """Of the training data that the run has now; None if they were not counted."""
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The last part of the folder's path."""
        return self.folder.path.resolve().name


def read_run(run_dir: Path) -> RunFiles:
    """The content of a run folder.

    Raises:
        UserError: it is not a run folder, or its configuration cannot be read.
    """
    folder, notes = find_run(run_dir), list[str]()
    config = read_run_config(folder)
    rows, unread = read_sound_rows(folder.metrics)
    notes += unread
    claims = _read(lambda: [each for each in read_claims(run_dir) if each.is_start], notes=notes) or []
    info = _read_info(folder, notes=notes)
    counts = read_word_counts(folder)
    record = build_record(
        config,
        info=info,
        rows=rows,
        exports={name: read_exported_step(folder.model(name)) for name in MODELS if folder.model(name).is_dir()},
        quarantine=_read(lambda: read_quarantine(run_dir), notes=notes) or (),
        find_scores=lambda row: read_deferred_scores(folder, row=row),
        test_sets=_read(lambda: _read_test_sets(folder), notes=notes),
        average=read_average(folder),
        ends=_read(lambda: read_ends(run_dir), notes=notes),
        unwritten=_read(lambda: read_unwritten(run_dir), notes=notes),
    )
    if not record.train_rows:
        notes.append("no training step has been recorded")
    return RunFiles(
        folder=folder,
        record=replace(
            record,
            eval_rows=tuple(with_external(row, folder=folder, step=row.step) for row in record.eval_rows),
            audit=read_audit(folder),
        ),
        rows=tuple(rows),
        claims=tuple(claims),
        saved=tuple(_read(lambda: _saved_steps(folder, claims=claims), notes=notes) or ()),
        word_counts=counts if counts is not None and counts.fingerprint == train_fingerprint(info) else None,
        notes=tuple(notes),
    )


def train_fingerprint(info: RunInfo) -> str | None:
    """Of the training token set of a run; None if it is not recorded."""
    return info.data["train"].fingerprint if "train" in info.data else None


def _read(read: Callable[[], T], *, notes: list[str]) -> T | None:
    try:
        return read()
    except UNREADABLE as error:
        notes.append(f"left out: {error}")
        return None


def _read_info(folder: RunFolder, *, notes: list[str]) -> RunInfo:
    if not folder.info.is_file():
        notes.append(f"{folder.info.name} is missing: machine, versions and data of the run are unknown")
        return RunInfo()
    return _read(lambda: read_run_info(folder.path), notes=notes) or RunInfo()


def _read_test_sets(folder: RunFolder) -> Mapping[str, tuple[ScoreFile, ...]]:
    return {
        name: tuple(with_external(each, folder=folder.test_set(name), step=each.step) for each in scores)
        for name, scores in read_test_sets(folder).items()
    }


def _saved_steps(folder: RunFolder, *, claims: Sequence[Claim]) -> list[int]:
    names = map(parse_checkpoint_name, current_dirs(folder.checkpoints, claims=claims))
    return sorted({name.step for name in names if name is not None})
