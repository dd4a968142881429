"""Disk space that a run's checkpoints and models need; checked before training starts. Pure except for one look at the
file system."""

import shutil
from pathlib import Path

from dstrain.errors import UserError

FP32_BYTES = 4
SPARE_BYTES = 16 << 20
"""Left free for manifests, metrics and cards."""
MODELS = 2
"""Exported model folders of a run: best and final. While one is replaced, both its versions exist."""


def plan_disk_space(
    *, num_trained: int, num_exported: int, num_moments: int, keep_last: int, model_bytes: int, num_saved: int
) -> int:
    """Bytes needed besides the `num_saved` existing checkpoints: for one checkpoint more than are kept, and for the models.

    Checkpoints of weights only, kept at a cadence, are not counted; a save that finds no room is skipped.
    """
    checkpoint = num_trained * FP32_BYTES * (1 + num_moments)
    weights_of_best = num_trained * FP32_BYTES
    missing = max(1, keep_last + 1 - num_saved)
    return checkpoint * missing + weights_of_best + num_exported * model_bytes * (MODELS + 1) + SPARE_BYTES


def check_disk_space(run_dir: Path, *, num_bytes: int, keep_last: int) -> None:
    """Check that the file system of a run folder has room for the run.

    Raises:
        UserError: too little is free; names the bytes needed and free.
    """
    free = shutil.disk_usage(run_dir).free
    if free < num_bytes:
        raise UserError(
            f"{run_dir}: the run needs {num_bytes / 1e6:,.0f} MB for checkpoints and models, {free / 1e6:,.0f} MB are free: "
            f"make room, give output_dir on a larger file system, or lower checkpoint.keep_last (now {keep_last}, at least 2)"
        )
