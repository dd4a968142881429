"""The claims on a run folder, `<run>/lease/00000003.json`: who may write it, and from which step each writer began."""

import errno
import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from dstrain.cluster.processes import Holder

DIRECTORY = "lease"
MAX_CLAIM_BYTES = 64 << 10
NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
"""What a file system answers that has none."""
_CLAIM_NAME = re.compile(r"([0-9]{8,})\.json")


@dataclass(frozen=True, slots=True)
class Claim:
    """One file of `lease/`."""

    number: int
    holder: Holder | None
    """None where the file is malformed or may not be read; such a claim is never released and supersedes nothing."""
    base_step: Annotated[int, Field(ge=0)] | None = None
    """Step of the checkpoint this writer went on from, 0 for a new run; None until it has chosen."""
    beat: int = 0
    """Grows with every renewal."""
    released: bool = False
    is_start: bool = True
    """Whether this writer trains; else it looks after a run that has finished."""
    job: str = ""
    """The scheduler's job that this writer is a start of; empty where there is none."""
    restart: Annotated[int, Field(ge=0)] = 0
    """How often that job had been started before."""

    def is_former_start(self, *, of: "Claim") -> bool:
        """Whether the scheduler has ended this writer's start: it has started the same job again since."""
        return self.job != "" and self.job == of.job and self.restart < of.restart


_CLAIM = TypeAdapter(Claim)


def read_claims(folder: Path) -> list[Claim]:
    """All claims on a run folder in order of number; a malformed one has no holder, and no base step."""
    return [load_claim(folder, number=number) for number in claim_numbers(folder)]


def is_superseded(claims: Sequence[Claim], *, lease: int, step: int) -> bool:
    """Whether the checkpoint that a lease saved at a step was left aside: a later writer went on from an earlier step.

    So is what a writer commits after its takeover, cut off and unaware of it: its step is past its successor's base.
    """
    return any(claim.number > lease and claim.base_step is not None and claim.base_step < step for claim in claims)


def create_claim(folder: Path, *, claim: Claim) -> bool:
    """Make a claim's file with its content at once; False if somebody was faster."""
    path = claim_path(folder, number=claim.number)
    temporary = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    try:
        _write(temporary, content=_CLAIM.dump_json(claim))
        os.link(temporary, path)
    except FileExistsError:
        # NFS may repeat a request whose answer was lost, and then finds its own link
        if temporary.stat().st_nlink != 2:
            return False
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        return _create_without_link(path, claim=claim)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)
    return True


def save_claim(folder: Path, *, claim: Claim) -> None:
    """Replace the file of a claim."""
    path = claim_path(folder, number=claim.number)
    temporary = path.with_suffix(".tmp")  # one name, so that a kill here leaves one file at most
    _write(temporary, content=_CLAIM.dump_json(claim))
    temporary.replace(path)
    _sync(path.parent)


def _create_without_link(path: Path, *, claim: Claim) -> bool:
    # for a moment the claim is empty, which others take for a holder they do not know
    try:
        _write(path, content=_CLAIM.dump_json(claim), mode="xb")
    except FileExistsError:
        return False
    _sync(path.parent)
    return True


def claim_path(folder: Path, *, number: int) -> Path:
    return folder / DIRECTORY / f"{number:08d}.json"


def claim_numbers(folder: Path) -> list[int]:
    try:
        names = os.listdir(folder / DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return []
    numbers = {int(match[1]) for name in names if (match := _CLAIM_NAME.fullmatch(name))}
    return sorted(number for number in numbers if claim_path(folder, number=number).name in names)


def load_claim(folder: Path, *, number: int) -> Claim:
    try:
        claim = _CLAIM.validate_json(_read(claim_path(folder, number=number)), strict=True)
    except (OSError, ValidationError):
        claim = None
    # under another number it is a copy
    return claim if claim is not None and claim.number == number else Claim(number=number, holder=None)


def _read(path: Path) -> bytes:
    # a pipe of that name would else be waited for without end
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, MAX_CLAIM_BYTES)
    finally:
        os.close(descriptor)


def mtime(path: Path) -> float:
    """When a file was last written, in seconds of the file system's clock."""
    try:
        # opened, because NFS answers a plain stat from memory
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return path.lstat().st_mtime  # may not be read, or points nowhere
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)


def file_system_time(folder: Path) -> float:
    probe = folder / DIRECTORY / f"{uuid.uuid4().hex}.tmp"
    try:
        _write(probe, content=b"\n")
        return mtime(probe)
    finally:
        probe.unlink(missing_ok=True)


def _write(path: Path, *, content: bytes, mode: str = "wb") -> None:
    with path.open(mode) as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())  # else the name may reach the disk before the content


def _sync(directory: Path) -> None:
    # a claim forgotten in a power cut would let its number be used twice
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
