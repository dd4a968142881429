"""What each checkpoint of a run is worth, found by reading it in full. Changes nothing, prints nothing, knows no tensors."""

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from dstrain.checkpoint.manifest import MANIFEST, CheckpointError, Manifest, load_manifest, verify_checkpoint
from dstrain.checkpoint.store import checkpoint_dirs, leftover_dirs, parse_checkpoint_name, verify_committed
from dstrain.run_folder.claims import Claim, is_superseded, read_claims
from dstrain.run_folder.layout import RunFolder


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one directory is worth."""

    directory: Path
    num_bytes: int
    """On disk."""
    manifest: Manifest | None = None
    """None where it cannot be read, and of leftovers."""
    problem: str | None = None
    """Why it is not whole; names the file."""
    is_leftover: bool = False
    """Of a save or a removal that was interrupted, or is under way."""
    is_superseded: bool = False
    """A later writer went on from an earlier step, so no start will use it."""
    is_next: bool = False
    """A start would go on from it."""

    @property
    def is_whole(self) -> bool:
        return self.problem is None and not self.is_leftover


def is_checkpoint(directory: Path) -> bool:
    """Whether a directory is one checkpoint, whole or not, and no folder of them."""
    named = parse_checkpoint_name(directory) is not None or directory in leftover_dirs(directory.parent)
    return named or os.path.lexists(directory / MANIFEST)


def inspect_run(run_dir: Path) -> list[Verdict]:
    """All checkpoints of a run folder (or of its checkpoints folder), the newest step first; then what was left unfinished.

    One that is removed meanwhile is not listed.
    """
    checkpoints = RunFolder(run_dir).checkpoints
    root = checkpoints if checkpoints.is_dir() else run_dir
    claims = read_claims(root.absolute().parent)
    verdicts: list[Verdict] = []
    for directory in checkpoint_dirs(root):
        verdict = _inspect(directory, claims=claims)
        full = verdict.is_whole and verdict.manifest is not None and verdict.manifest.content == "full"
        if full and not verdict.is_superseded and not any(newer.is_next for newer in verdicts):
            verdict = replace(verdict, is_next=True)
        verdicts.append(verdict)
    verdicts += [_leftover(directory) for directory in leftover_dirs(root)]
    return [verdict for verdict in verdicts if os.path.lexists(verdict.directory)]


def inspect_checkpoint(directory: Path) -> Verdict:
    """One checkpoint, wherever it lies; which of its run is the next to go on from is not asked."""
    if directory in leftover_dirs(directory.parent):
        return _leftover(directory)
    return _inspect(directory, claims=read_claims(directory.absolute().parent.parent))


def is_sound(verdicts: list[Verdict]) -> bool:
    """Whether a run can go on, and nothing of it is broken."""
    return any(verdict.is_next for verdict in verdicts) and all(verdict.problem is None for verdict in verdicts)


def _inspect(directory: Path, *, claims: list[Claim]) -> Verdict:
    # one that was taken elsewhere may have any name
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
    return Verdict(directory, _size(directory), manifest, problem, is_superseded=superseded)


def _leftover(directory: Path) -> Verdict:
    return Verdict(directory, _size(directory), is_leftover=True)


def _peek(directory: Path) -> Manifest | None:
    try:
        return load_manifest(directory)
    except CheckpointError:
        return None


def _size(directory: Path) -> int:
    """Bytes of all files; links are not followed, and what vanishes meanwhile counts nothing."""
    size = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with suppress(OSError):
                size += os.lstat(os.path.join(folder, name)).st_size
    return size
