"""Reads what a report needs of a run folder, whatever the run is doing and whatever of it is missing. Writes nothing.

Only the configuration must be there, or a start that ended before it was stored. What else cannot be read is left out, and a note
says so.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from dstrain.checkpoint.store import current_dirs, parse_checkpoint_name
from dstrain.errors import UserError
from dstrain.run_folder.audit import Audit, read_audit
from dstrain.run_folder.average import read_average
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.claims import Claim, read_claims
from dstrain.run_folder.external import with_external
from dstrain.run_folder.find import find_run
from dstrain.run_folder.layout import MODELS, RunFolder
from dstrain.run_folder.outcome import RunOutcome, read_ends, read_unwritten
from dstrain.run_folder.reading import read_exported_step
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
class Notes:
    """What a report lacks, a sentence each."""

    damage: tuple[str, ...] = ()
    """Files that are missing or cannot be read."""
    others: tuple[str, ...] = ()
    """What was left out for want of room, or is not known."""

    def __add__(self, more: "Notes") -> "Notes":
        return Notes(self.damage + more.damage, self.others + more.others)


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The content of a run folder, as far as it could be read."""

    folder: RunFolder
    record: RunRecord
    rows: tuple[Row, ...]
    """All of metrics.jsonl, also those that a later attempt repeated."""
    has_unread_rows: bool
    """Whether there are others that cannot be read."""
    claims: tuple[Claim, ...]
    """One per attempt, the newest last."""
    saved: tuple[int, ...]
    """Steps whose checkpoints are kept, ascending."""
    word_counts: WordCounts | None
    """Of the training data that the run has now; None if they were not counted."""
    notes: Notes

    @property
    def name(self) -> str:
        """The last part of the folder's path."""
        return self.folder.path.resolve().name

    @property
    def run_name(self) -> str:
        """What the recipe calls the run."""
        return self.record.config.name


@dataclass(frozen=True, slots=True)
class StartFiles:
    """The content of a run folder whose run has never begun to train: its starts, and how they ended."""

    folder: RunFolder
    claims: tuple[Claim, ...]
    """As in RunFiles."""
    ends: Mapping[int, RunOutcome]
    """How starts ended, by the number of their claim."""
    notes: Notes

    @property
    def name(self) -> str:
        """The last part of the folder's path."""
        return self.folder.path.resolve().name

    @property
    def run_name(self) -> str:
        """The same: what the recipe calls the run is not known."""
        return self.name


def read_run(run_dir: Path) -> RunFiles:
    """The content of a run folder.

    Raises:
        UserError: it is not a run folder, or its configuration cannot be read.
    """
    folder = find_run(run_dir)
    config = read_run_config(folder)
    rows, damage = read_sound_rows(folder.metrics)
    has_unread_rows = bool(damage)
    claims = _read_claims(run_dir, damage=damage)
    info = _read_info(folder, damage=damage)
    audit, counts = _read_audit(folder, damage=damage), read_word_counts(folder)
    record = build_record(
        config,
        info=info,
        rows=rows,
        exports={name: read_exported_step(folder.model(name)) for name in MODELS if folder.model(name).is_dir()},
        quarantine=_read(lambda: read_quarantine(run_dir), damage=damage) or (),
        find_scores=lambda row: read_deferred_scores(folder, row=row),
        test_sets=_read(lambda: _read_test_sets(folder), damage=damage),
        average=read_average(folder),
        ends=_read(lambda: read_ends(run_dir), damage=damage),
        unwritten=_read(lambda: read_unwritten(run_dir), damage=damage),
    )
    return RunFiles(
        folder=folder,
        record=replace(
            record,
            eval_rows=tuple(with_external(row, folder=folder, step=row.step) for row in record.eval_rows),
            audit=audit,
        ),
        rows=tuple(rows),
        has_unread_rows=has_unread_rows,
        claims=claims,
        saved=tuple(_read(lambda: _saved_steps(folder, claims=claims), damage=damage) or ()),
        word_counts=counts if counts is not None and counts.fingerprint == train_fingerprint(info) else None,
        notes=Notes(
            tuple(damage), () if record.train_rows or has_unread_rows else ("no training step has been recorded",)
        ),
    )


def read_starts(run_dir: Path) -> StartFiles:
    """The content of the folder of a run that has never begun to train, as `has_only_starts` finds."""
    damage: list[str] = []
    claims = _read_claims(run_dir, damage=damage)
    ends = _read(lambda: read_ends(run_dir), damage=damage) or {}
    return StartFiles(RunFolder(run_dir), claims, ends, Notes(tuple(damage)))


def train_fingerprint(info: RunInfo) -> str | None:
    """Of the training token set of a run; None if it is not recorded."""
    return info.data["train"].fingerprint if "train" in info.data else None


def _read(read: Callable[[], T], *, damage: list[str]) -> T | None:
    try:
        return read()
    except UNREADABLE as error:
        damage.append(f"left out: {error}")
        return None


def _read_claims(run_dir: Path, *, damage: list[str]) -> tuple[Claim, ...]:
    return tuple(each for each in _read(lambda: read_claims(run_dir), damage=damage) or () if each.is_start)


def _read_audit(folder: RunFolder, *, damage: list[str]) -> Audit | None:
    audit = read_audit(folder)
    if audit is None and os.path.lexists(folder.audit):
        damage.append(f"{folder.audit.name} cannot be read: what was found in the data is left out")
    return audit


def _read_info(folder: RunFolder, *, damage: list[str]) -> RunInfo:
    if not folder.info.is_file():
        damage.append(f"{folder.info.name} is missing: machine, versions and data of the run are unknown")
        return RunInfo()
    return _read(lambda: read_run_info(folder.path), damage=damage) or RunInfo()


def _read_test_sets(folder: RunFolder) -> Mapping[str, tuple[ScoreFile, ...]]:
    return {
        name: tuple(with_external(each, folder=folder.test_set(name), step=each.step) for each in scores)
        for name, scores in read_test_sets(folder).items()
    }


def _saved_steps(folder: RunFolder, *, claims: Sequence[Claim]) -> list[int]:
    names = map(parse_checkpoint_name, current_dirs(folder.checkpoints, claims=claims))
    return sorted({name.step for name in names if name is not None})
