"""Evaluations that a run left to another job, that have no scores yet, and whose checkpoint exists."""

from dataclasses import dataclass
from pathlib import Path

from dstrain.checkpoint.store import current_dirs, parse_checkpoint_name
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import load_record


@dataclass(frozen=True, slots=True, order=True)
class PendingEvaluation:
    """An evaluation without scores whose checkpoint exists."""

    step: int
    lease: int


def list_pending(run_dir: Path) -> list[PendingEvaluation]:
    """The pending evaluations of a run, the oldest first; raises RunFolderError where a file is damaged."""
    saved = {
        (name.step, name.lease)
        for path in current_dirs(RunFolder(run_dir).checkpoints, claims=read_claims(run_dir))
        if (name := parse_checkpoint_name(path))
    }
    rows = load_record(run_dir).pending_rows
    return sorted(PendingEvaluation(row.step, row.lease) for row in rows if (row.step, row.lease) in saved)
