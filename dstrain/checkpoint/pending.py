"""Checkpoints whose evaluation was left to another job and has no scores yet."""

from dataclasses import dataclass
from pathlib import Path

from dstrain.checkpoint.store import current_dirs, parse_checkpoint_name
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.record import load_record


@dataclass(frozen=True, slots=True, order=True)
class PendingEvaluation:
    """An evaluation without scores whose checkpoint is there."""

    step: int
    lease: int


def list_pending(run_dir: Path) -> list[PendingEvaluation]:
    """The due evaluations of a run, the oldest first; raises RunFolderError where the folder is broken."""
    there = {
        (name.step, name.lease)
        for path in current_dirs(run_dir / "checkpoints", claims=read_claims(run_dir))
        if (name := parse_checkpoint_name(path))
    }
    rows = load_record(run_dir).pending_rows
    return sorted(PendingEvaluation(row.step, row.lease) for row in rows if (row.step, row.lease) in there)
