"""The files of `<run>/lease/`: one claim per attempt, `00000003.json`, and its request to stop, `00000003.stop`.

The claim of the highest number says who may write to the run folder. Claims are never removed: a number that is used twice
would confuse two writers, and their `base_step` shows for good which checkpoints belong to the present run (`is_superseded`).

Requirements on a shared file system: a hard link or an exclusive create fails if the name exists; a rename is atomic; opening a
file or directory shows what other hosts have closed before (close-to-open consistency, so no NFS mounted with `nocto`). No locks.
"""

import errno
import os
import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from dstrain.cluster.processes import Holder
from dstrain.run_folder.atomic import create_file, sync_path, write_file
from dstrain.run_folder.layout import RunFolder

MAX_CLAIM_BYTES = 64 << 10
NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
"""Errors of file systems without hard links."""
_CLAIM_NAME = re.compile(r"([0-9]{8,})\.json")


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt's claim on the run folder."""

    number: int
    holder: Holder | None
    """None if the file is malformed or unreadable; such a claim is never released and supersedes nothing."""
    base_step: Annotated[int, Field(ge=0)] | None = None
    """Step of the checkpoint that this writer resumed from, 0 for a new run; None until it has chosen."""
    beat: int = 0
    """Grows with every renewal."""
    released: bool = False
    is_start: bool = True
    """Whether this writer trains; False if it only works on a finished run."""
    job: str = ""
    """The scheduler's job of this writer; empty without one."""
    restart: Annotated[int, Field(ge=0)] = 0
    """How often that job had been restarted."""
    launch: Annotated[int, Field(ge=0)] = 0
    """How often its batch script had started the ranks again since then, after nodes were lost."""

    def is_former_start(self, *, of: "Claim") -> bool:
        """Whether `of` is a later start of the same job, so that the scheduler or the batch script has ended this one."""
        return self.job != "" and self.job == of.job and (self.restart, self.launch) < (of.restart, of.launch)


_CLAIM = TypeAdapter(Claim)


def read_claims(folder: Path) -> list[Claim]:
    """All claims on a run folder by number. A malformed one has neither holder nor base step."""
    return [load_claim(folder, number=number) for number in claim_numbers(folder)]


def is_superseded(claims: Sequence[Claim], *, lease: int, step: int) -> bool:
    """Whether a later writer resumed from before the checkpoint that `lease` saved at `step`, so that it must be ignored.

    This includes checkpoints that a writer commits after it was replaced, for example on a node without network: their steps
    are past the base of its successor.
    """
    return any(claim.number > lease and claim.base_step is not None and claim.base_step < step for claim in claims)


def create_claim(folder: Path, *, claim: Claim) -> bool:
    """Create the file of a claim, complete from the start; returns False if another process was faster."""
    path = claim_path(folder, number=claim.number)
    temporary = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    try:
        create_file(temporary, _CLAIM.dump_json(claim), durable=True)
        os.link(temporary, path)
    except FileExistsError:
        # NFS may repeat a request whose answer was lost, and then fail on its own link
        if temporary.stat().st_nlink != 2:
            return False
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        return _create_without_link(path, claim=claim)
    finally:
        temporary.unlink(missing_ok=True)
    sync_path(path.parent)  # a claim lost in a power cut would let its number be used twice
    return True


def save_claim(folder: Path, *, claim: Claim) -> None:
    """Replace the file of a claim."""
    write_file(claim_path(folder, number=claim.number), _CLAIM.dump_json(claim), durable=True)


def _create_without_link(path: Path, *, claim: Claim) -> bool:
    # for a moment the claim is empty, which others treat as an unknown holder
    try:
        create_file(path, _CLAIM.dump_json(claim), durable=True)
    except FileExistsError:
        return False
    sync_path(path.parent)
    return True


def claim_path(folder: Path, *, number: int) -> Path:
    """The file of a claim."""
    return RunFolder(folder).claims / f"{number:08d}.json"


def claim_numbers(folder: Path) -> list[int]:
    """Numbers of all claims, ascending."""
    try:
        names = os.listdir(RunFolder(folder).claims)
    except (FileNotFoundError, NotADirectoryError):
        return []
    numbers = {int(match[1]) for name in names if (match := _CLAIM_NAME.fullmatch(name))}
    return sorted(number for number in numbers if claim_path(folder, number=number).name in names)


def load_claim(folder: Path, *, number: int) -> Claim:
    """The claim of a number; without a holder if its file is malformed or unreadable."""
    try:
        claim = _CLAIM.validate_json(_read(claim_path(folder, number=number)), strict=True)
    except (OSError, ValidationError):
        claim = None
    # a file with another number inside is a copy
    return claim if claim is not None and claim.number == number else Claim(number=number, holder=None)


def request_stop(folder: Path, *, number: int) -> None:
    """Request all ranks of attempt `number` to stop, for where ranks do not communicate at every step."""
    with suppress(FileExistsError):  # by another rank
        create_file(_stop_path(folder, number=number))


def is_stop_requested(folder: Path, *, number: int) -> bool:
    """Whether a rank has requested the stop of attempt `number`."""
    path = _stop_path(folder, number=number)
    # by listing: NFS caches for a minute that a name was absent, but reads a directory again when it is opened
    return path.name in os.listdir(path.parent)


def _stop_path(folder: Path, *, number: int) -> Path:
    return RunFolder(folder).claims / f"{number:08d}.stop"


def _read(path: Path) -> bytes:
    # non-blocking, because opening a pipe of that name would wait forever
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        return os.read(descriptor, MAX_CLAIM_BYTES)
    finally:
        os.close(descriptor)


def mtime(path: Path) -> float:
    """When a file was last written, in seconds of the file system's clock."""
    try:
        # opened, because NFS answers a plain stat from its cache
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return path.lstat().st_mtime  # unreadable, or a dangling link
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)


def file_system_time(folder: Path) -> float:
    """The present time by the file system's clock, in seconds."""
    probe = RunFolder(folder).claims / f"{uuid.uuid4().hex}.tmp"
    try:
        create_file(probe, b"\n", durable=True)
        return mtime(probe)
    finally:
        probe.unlink(missing_ok=True)
