"""How much room a run's checkpoints and models need on disk: looked at before training, not after days of it. Pure but for
asking the file system."""

import shutil
from pathlib import Path

from dstrain.errors import UserError

FP32_BYTES = 4
SPARE_BYTES = 16 << 20
"""Left free beside a checkpoint: manifests, metrics and cards must still find room."""
MODELS = 2
"""Exported model folders of a run: best and final; while one is replaced both versions lie there."""


def plan_room(*, num_parameters: int, num_moments: int, keep_last: int, model_bytes: int, num_saved: int) -> int:
    """Bytes that a run will need at once beside the `num_saved` checkpoints it has: one more than are kept, and its models.

    Checkpoints of weights only, kept at a cadence, come on top as the run goes on; a save that finds no room is skipped.
    """
    checkpoint = num_parameters * FP32_BYTES * (1 + num_moments)
    weights_of_best = num_parameters * FP32_BYTES
    missing = max(1, keep_last + 1 - num_saved)
    return checkpoint * missing + weights_of_best + num_parameters * model_bytes * (MODELS + 1) + SPARE_BYTES


def check_room(run_dir: Path, *, num_bytes: int, keep_last: int) -> None:
    """Whether a run folder's file system has room for a run.

    Raises:
        UserError: it has not; says how much is needed and free.
    """
    free = shutil.disk_usage(run_dir).free
    if free < num_bytes:
        raise UserError(
            f"{run_dir}: the run needs {num_bytes / 1e6:,.0f} MB for checkpoints and models, {free / 1e6:,.0f} MB are free: "
            f"make room, give output_dir on a larger file system, or lower checkpoint.keep_last (now {keep_last}, at least 2)"
        )
