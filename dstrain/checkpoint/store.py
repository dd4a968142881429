"""Checkpoint directories: begin, commit, newest valid, prune. Knows paths, manifests and leases, no tensors.

A directory is a checkpoint if and only if its manifest verifies. It is written as `step-N.lease-L.tmp`, the manifest last,
and renamed into place; before removal it is renamed again. So a directory under its final name is complete, unless it was
damaged from outside. There is no `latest` file, because it could be wrong.
"""

import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dstrain.checkpoint.manifest import (
    MANIFEST,
    CheckpointError,
    Manifest,
    load_manifest,
    save_manifest,
    verify_checkpoint,
)
from dstrain.errors import UserError
from dstrain.run_folder.atomic import sync_path
from dstrain.run_folder.claims import Claim, is_superseded, read_claims
from dstrain.run_folder.layout import RunFolder

_NAME = re.compile(r"step-([0-9]{8,18})\.lease-([0-9]{1,18})")
_LEFTOVER = re.compile(_NAME.pattern + r"\.(tmp|old)")

OPTIMIZER_PREFIX = "optimizer-"
"""Files that a checkpoint of weights only does not have."""

OnStage = Callable[[str], None]
"""Called with the name of each stage of a save or removal as it is reached."""


@dataclass(frozen=True, slots=True, order=True)
class CheckpointName:
    """The step and lease in the name of a checkpoint directory."""

    step: int
    lease: int

    def __str__(self) -> str:
        return f"step-{self.step:08d}.lease-{self.lease}"


def parse_checkpoint_name(directory: Path) -> CheckpointName | None:
    """The name of a committed directory, or None for any other path."""
    match = _NAME.fullmatch(directory.name)
    name = CheckpointName(int(match[1]), int(match[2])) if match else None
    return name if str(name) == directory.name else None


def leftover_dirs(root: Path) -> list[Path]:
    """Directories that interrupted saves and removals have left."""
    return sorted(path for path in root.glob("step-*") if _LEFTOVER.fullmatch(path.name))


def begin_save(root: Path, *, name: CheckpointName) -> Path:
    """Remove leftovers of interrupted saves, then create and return an empty directory for the parts of a checkpoint."""
    remove_leftovers(root, lease=name.lease)
    root.mkdir(parents=True, exist_ok=True)
    _sync_parents(root)
    parts = root / f"{name}.tmp"
    parts.mkdir()
    return parts


def remove_leftovers(root: Path, *, lease: int) -> None:
    """Remove what interrupted saves and removals of this or an earlier lease left, or it would fill the disk.

    Directories of a later lease are kept, since its writer may still be running.
    """
    for leftover in leftover_dirs(root):
        match = _LEFTOVER.fullmatch(leftover.name)
        if match and int(match[2]) <= lease:
            remove_leftover(leftover)


def commit_save(parts: Path, *, manifest: Manifest, on_stage: OnStage) -> Path:
    """Write the manifest and rename the directory into place; every part must be on disk already.

    Replaces a checkpoint of the same step and lease, which exists if the same process repeats steps after a fall-back.
    """
    on_stage("manifest")
    save_manifest(manifest, directory=parts)
    on_stage("rename")
    final = parts.with_suffix("")
    replaced = _set_aside(final) if final.exists() else None
    parts.rename(final)
    sync_path(final.parent)
    if replaced is not None:
        _delete(replaced)
    on_stage("renamed")
    return final


def checkpoint_dirs(root: Path) -> list[Path]:
    """Committed directories, valid or not: the newest step first, and for equal steps the later lease first."""
    if not root.is_dir():
        return []
    named = [(name, path) for path in root.iterdir() if (name := parse_checkpoint_name(path))]
    return [path for _, path in sorted(named, reverse=True)]


def current_dirs(root: Path, *, claims: Sequence[Claim]) -> list[Path]:
    """Committed directories that belong to the current run, without those of a writer that no longer held the lease."""
    found = []
    for path in checkpoint_dirs(root):
        name = parse_checkpoint_name(path)
        if name and not is_superseded(claims, lease=name.lease, step=name.step):
            found.append(path)
    return found


def newest_valid(
    root: Path, *, claims: Sequence[Claim] = (), on_broken: Callable[[str], None]
) -> tuple[Path, Manifest] | None:
    """The newest full checkpoint that verifies; reads each in full and calls `on_broken` with the problem of a broken one."""
    for directory in current_dirs(root, claims=claims):
        try:
            manifest = verify_committed(directory)
        except CheckpointError as error:
            on_broken(str(error))
            continue
        if manifest.content == "full":
            return directory, manifest
    return None


def verify_committed(directory: Path) -> Manifest:
    """The manifest of a checkpoint, after checking its files and that the directory still has its original name.

    Raises:
        CheckpointError: as `verify_checkpoint`, or the directory was renamed, so its name says another step or lease.
    """
    manifest = verify_checkpoint(directory)
    name = CheckpointName(manifest.step, manifest.lease)
    if name != parse_checkpoint_name(directory):
        raise CheckpointError(f"{directory / MANIFEST}: it was saved as {name}, so its directory was renamed or copied")
    return manifest


@dataclass(frozen=True, slots=True)
class Pruning:
    """Which older checkpoints are removed and which are trimmed."""

    remove: tuple[Path, ...] = ()
    trim: tuple[Path, ...] = ()
    """These are kept without optimizer state."""


def plan_pruning(
    root: Path,
    *,
    claims: Sequence[Claim],
    keep_last: int,
    keep_steps: Iterable[int],
    keep_weights_every: int | None,
    is_valid: Callable[[Path], bool],
) -> Pruning:
    """The checkpoints to remove and to trim, so that the newest `keep_last` valid ones stay in full.

    Steps of `keep_steps` and multiples of `keep_weights_every` stay as weights. Nothing is removed while the newest is broken
    or fewer than `keep_last` are valid: the older ones may be needed. A broken one stays until `keep_last` newer ones are
    valid.
    """
    assert keep_last >= 2, keep_last
    current = current_dirs(root, claims=claims)
    kept: list[Path] = []
    for directory in current:
        if len(kept) == keep_last:
            break
        if is_valid(directory):
            kept.append(directory)
        elif not kept:
            return Pruning()
    if len(kept) < keep_last:
        return Pruning()
    late = [path for path in checkpoint_dirs(root) if path not in current]
    older = current[current.index(kept[-1]) + 1 :]
    wanted = frozenset(keep_steps)

    def is_wanted(directory: Path) -> bool:
        name = parse_checkpoint_name(directory)
        assert name
        return name.step in wanted or (keep_weights_every is not None and name.step % keep_weights_every == 0)

    remove = [path for path in older if not is_wanted(path)] + late
    return Pruning(tuple(remove), tuple(path for path in older if is_wanted(path)))


def carry_out(pruning: Pruning, *, on_stage: OnStage) -> None:
    """Remove and trim; after an interruption at any point, every directory under its final name is still valid."""
    for directory in pruning.remove:
        on_stage("prune")
        remove_checkpoint(directory)
    for directory in pruning.trim:
        on_stage("prune")
        trim_checkpoint(directory)


def remove_checkpoint(directory: Path) -> None:
    """Rename a checkpoint in one atomic operation, then delete it."""
    doomed = _set_aside(directory)
    # otherwise a power cut could keep the old name but lose files
    sync_path(doomed.parent)
    _delete(doomed)


def remove_leftover(parts: Path) -> None:
    """Delete what a failed save has written, which may have filled the disk; errors are ignored."""
    with suppress(OSError):
        _delete(parts)


def trim_checkpoint(directory: Path) -> None:
    """Remove the optimizer state of a checkpoint and keep the rest.

    Leaves it unchanged if its manifest cannot be read, or if it is a link, since it lies elsewhere then.
    """
    if directory.is_symlink():
        return
    try:
        manifest = load_manifest(directory)
    except CheckpointError:
        return
    if manifest.content == "full":
        kept = tuple(entry for entry in manifest.files if not entry.path.startswith(OPTIMIZER_PREFIX))
        # the manifest first: it must never name a file that is deleted
        save_manifest(replace(manifest, files=kept, content="weights"), directory=directory)
    for path in directory.glob(f"{OPTIMIZER_PREFIX}*"):
        _delete(path)


def _sync_parents(root: Path) -> None:
    """Sync all parent directories of `root` up to the mount point, so that they survive a power cut if they are new."""
    for folder in root.absolute().parents:
        with suppress(PermissionError):  # one that we may not open was not created by us
            sync_path(folder)
        if folder.is_mount():
            return


def _set_aside(directory: Path) -> Path:
    doomed = directory.with_name(f"{directory.name}.old")
    remove_leftover(doomed)
    return directory.rename(doomed)


def _delete(path: Path) -> None:
    # a user may have moved a checkpoint to another disk and left a link, which is not followed
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)


def newest_step(run_dir: Path) -> int:
    """Step of the newest checkpoint by its directory name, or 0 without one; the checkpoint is not verified."""
    found = current_dirs(RunFolder(run_dir).checkpoints, claims=read_claims(run_dir))
    names = [name for path in found if (name := parse_checkpoint_name(path))]
    return max((name.step for name in names), default=0)


def find_checkpoint(run_dir: Path, *, step: int | None) -> Path:
    """The valid checkpoint of `step`, or the newest valid one if `step` is None; full or of weights only.

    Raises:
        UserError: there is none; the message lists the steps that exist.
    """
    directories = current_dirs(RunFolder(run_dir).checkpoints, claims=read_claims(run_dir))
    broken = []
    for directory in directories:
        name = parse_checkpoint_name(directory)
        if step is not None and (name is None or name.step != step):
            continue
        try:
            verify_committed(directory)
        except CheckpointError as error:
            broken.append(str(error))
            continue
        return directory
    there = ", ".join(str(name.step) for path in directories if (name := parse_checkpoint_name(path))) or "none"
    why = f"; not valid: {'; '.join(broken)}" if broken else ""
    wanted = "no valid checkpoint" if step is None else f"no valid checkpoint of step {step}"
    raise UserError(f"{RunFolder(run_dir).checkpoints}: {wanted} (steps there: {there}){why}")
