"""Checkpoint directories: begin, commit, newest valid, prune. Knows paths and manifests, no tensors.

A directory exists as a checkpoint if and only if its manifest verifies. It is written as `step-N.tmp`, the manifest last, and
renamed into place; there is no `latest` file, because it can lie.
"""

import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from dstrain.checkpoint.manifest import MANIFEST, CheckpointError, Manifest, save_manifest, verify_checkpoint

log = logging.getLogger(__name__)

_STEP_NAME = re.compile(r"step-(\d{8,})")


def step_dir(root: Path, *, step: int) -> Path:
    """Where the checkpoint of a step lies once it is committed."""
    return root / f"step-{step:08d}"


def begin_save(root: Path, *, step: int) -> Path:
    """An empty directory to write the parts of a checkpoint into; what interrupted saves left under `root` is removed."""
    # a save cut short at one step would otherwise fill the disk for good, unless the run saves at that step again
    for leftover in root.glob("step-*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    parts = step_dir(root, step=step).with_suffix(".tmp")
    parts.mkdir(parents=True)
    return parts


def commit_save(parts: Path, *, manifest: Manifest) -> Path:
    """Write the manifest and rename the directory into place; every part must be on disk already.

    A checkpoint of the same step, from before a resume, is replaced.
    """
    save_manifest(manifest, directory=parts)
    sync_path(parts)
    final = parts.with_suffix("")
    if final.exists():
        _remove(final)
    parts.rename(final)
    sync_path(final.parent)
    return final


def checkpoint_dirs(root: Path) -> list[Path]:
    """Committed directories, the newest step first, whether or not they verify."""
    if not root.is_dir():
        return []
    named = [path for path in root.iterdir() if _STEP_NAME.fullmatch(path.name)]
    return sorted(named, key=step_of, reverse=True)


def step_of(directory: Path) -> int:
    """The step a checkpoint directory is named after."""
    match = _STEP_NAME.fullmatch(directory.name)
    assert match, directory
    return int(match[1])


def newest_valid(root: Path, *, on_broken: Callable[[str], None]) -> tuple[Path, Manifest] | None:
    """The newest checkpoint that verifies, found by reading; `on_broken` is told of every newer one that does not."""
    for directory in checkpoint_dirs(root):
        try:
            return directory, verify_checkpoint(directory)
        except CheckpointError as error:
            on_broken(str(error))
    return None


def prune(root: Path, *, keep_last: int, keep_steps: frozenset[int]) -> list[Path]:
    """Remove checkpoints but the newest `keep_last` and those of `keep_steps`; gives what was removed.

    Nothing is removed unless the newest verifies. One that does not, because it was passed over by a resume, is
    replaced when the run reaches its step again.
    """
    assert keep_last >= 2, keep_last
    directories = checkpoint_dirs(root)
    doomed = [path for path in directories[keep_last:] if step_of(path) not in keep_steps]
    try:
        if doomed:
            verify_checkpoint(directories[0])
    except CheckpointError as error:
        log.warning("no checkpoint is pruned, because the newest is not valid: %s", error)
        return []
    for directory in doomed:
        _remove(directory)
    return doomed


def sync_path(path: Path) -> None:
    """Make a file's content, or the names in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(directory: Path) -> None:
    # the manifest goes first, so that a removal cut short leaves nothing that looks like a checkpoint
    (directory / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(directory)
