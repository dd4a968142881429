"""The status of each checkpoint of a run, found by reading it in full. Changes nothing, prints nothing, knows no tensors."""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dstrain.checkpoint.manifest import MANIFEST, CheckpointError, Manifest, load_manifest, verify_checkpoint
from dstrain.checkpoint.store import checkpoint_dirs, leftover_dirs, parse_checkpoint_name, verify_committed
from dstrain.run_folder.claims import Claim, is_superseded, read_claims
from dstrain.run_folder.layout import RunFolder


@dataclass(frozen=True, slots=True)
class CheckpointStatus:
    """Whether one directory is a valid checkpoint, and whether the run would use it."""

    directory: Path
    num_bytes: int
    """Size on disk."""
    manifest: Manifest | None = None
    """None if it cannot be read, and for leftovers."""
    problem: str | None = None
    """Why it is not valid; names the file."""
    is_leftover: bool = False
    """Belongs to a save or removal that was interrupted or is still running."""
    is_superseded: bool = False
    """A later attempt resumed from an earlier step, so no attempt will use this one."""
    is_next: bool = False
    """The next attempt would resume from it."""

    @property
    def is_valid(self) -> bool:
        return self.problem is None and not self.is_leftover


def is_checkpoint(directory: Path) -> bool:
    """Whether a directory is one checkpoint, valid or not, rather than a folder of checkpoints."""
    named = parse_checkpoint_name(directory) is not None or directory in leftover_dirs(directory.parent)
    return named or os.path.lexists(directory / MANIFEST)


def inspect_run(run_dir: Path) -> list[CheckpointStatus]:
    """All checkpoints of a run folder (or of its checkpoints folder), the newest step first; then the leftovers.

    Checkpoints that are removed meanwhile are not listed.
    """
    checkpoints = RunFolder(run_dir).checkpoints
    root = checkpoints if checkpoints.is_dir() else run_dir
    claims = read_claims(root.absolute().parent)
    statuses: list[CheckpointStatus] = []
    for directory in checkpoint_dirs(root):
        status = _inspect(directory, claims=claims)
        full = status.is_valid and status.manifest is not None and status.manifest.content == "full"
        if full and not status.is_superseded and not any(newer.is_next for newer in statuses):
            status = replace(status, is_next=True)
        statuses.append(status)
    statuses += [_leftover(directory) for directory in leftover_dirs(root)]
    return [status for status in statuses if os.path.lexists(status.directory)]


def inspect_checkpoint(directory: Path) -> CheckpointStatus:
    """The status of one checkpoint in any folder; `is_next` is not determined."""
    if directory in leftover_dirs(directory.parent):
        return _leftover(directory)
    return _inspect(directory, claims=read_claims(directory.absolute().parent.parent))


def is_sound(statuses: list[CheckpointStatus]) -> bool:
    """Whether the run can resume and no checkpoint is broken."""
    return any(status.is_next for status in statuses) and all(status.problem is None for status in statuses)


def _inspect(directory: Path, *, claims: list[Claim]) -> CheckpointStatus:
    # a copy outside the run folder may have any name
    verify = verify_committed if parse_checkpoint_name(directory) else verify_checkpoint
    manifest, problem = _peek(directory), None
    try:
        manifest = verify(directory)
    except CheckpointError as error:
        problem = str(error)
        if manifest != (now := _peek(directory)):  # its optimizer state was removed while it was read
            manifest, problem = now, None
            try:
                verify(directory)
            except CheckpointError as again:
                problem = str(again)
    name = parse_checkpoint_name(directory)
    superseded = name is not None and is_superseded(claims, lease=name.lease, step=name.step)
    return CheckpointStatus(directory, _size(directory), manifest, problem, is_superseded=superseded)


def _leftover(directory: Path) -> CheckpointStatus:
    return CheckpointStatus(directory, _size(directory), is_leftover=True)


def _peek(directory: Path) -> Manifest | None:
    try:
        return load_manifest(directory)
    except CheckpointError:
        return None


def _size(directory: Path) -> int:
    """Bytes of all files; does not follow links, and skips files that vanish meanwhile."""
    size = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                size += os.lstat(os.path.join(folder, name)).st_size
    return size
