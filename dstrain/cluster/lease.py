"""The lease of a run folder: who may write it. Owns `<run>/lease/`; knows nothing of checkpoints, ranks or when to renew.

A run folder has one writer. Its claim is the file of the highest number, `lease/00000003.json`; a takeover adds the next
number, so that a writer which slept through it renews a file of its own and finds the newer one there. Claims are never
removed: they are a few hundred bytes a start, a number used twice would mix up two writers, and `base_step` in them tells for
good which checkpoints lie on the line that is continued (`is_superseded`).

Needed of a shared file system: a hard link or an exclusive create fails where the name exists, a rename is atomic, and opening
a file or a directory shows what other hosts closed before (close-to-open, so no NFS mounted with `nocto`).
No locks, and no clocks that agree: ages are differences between two times given by the file system. Lustre gives the writing
host's time, so there the clocks of hosts must agree to well within `stale_seconds`.

Shown with real processes, stopped, killed and in several pid namespaces, on local file systems. Other hosts are only
simulated: no NFS or Lustre was at hand, so their caches, repeated requests and clocks are handled as their manuals say.
"""

import errno
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from dstrain.cluster.holder import Holder
from dstrain.cluster.processes import HIDDEN, process_start
from dstrain.errors import UserError

DIRECTORY = "lease"
MAX_CLAIM_BYTES = 64 << 10
NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
"""What a file system answers that has none."""

_CLAIM_NAME = re.compile(r"([0-9]{8,})\.json")

log = logging.getLogger(__name__)


class LeaseHeld(UserError):
    """Another process writes this run folder; the message names it and the way out."""

    is_said_by_rank_0 = True


class LeaseLost(UserError):
    """This process may not write the run folder any more; the message names who may."""


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


class Lease:
    """What the one writer of a run folder holds. Its methods may be called from several threads."""

    def __init__(self, folder: Path, *, claim: Claim) -> None:
        self._folder = folder
        self._claim = claim
        self._lock = threading.Lock()
        self.number = claim.number

    def check(self) -> None:
        """Ask, right before something becomes visible to others, whether this process still holds the lease.

        Raises:
            LeaseLost: a claim with a higher number exists, or this one was removed.
            OSError: the folder cannot be read; nothing is known.
        """
        numbers = _claim_numbers(self._folder)
        newest = max(numbers, default=0)
        if newest > self.number:
            raise self._lost(f"lease {newest} of {_name(_load_claim(self._folder, number=newest).holder)}")
        if self.number not in numbers:
            raise self._lost(f"nobody: {_claim_path(self._folder, number=self.number)} was removed")
        # somebody who finds an emptied folder begins to count anew
        found = _load_claim(self._folder, number=self.number).holder
        if found is not None and found != self._claim.holder:
            raise self._lost(f"another lease {self.number} of {_name(found)}")

    def renew(self) -> None:
        """Show that this process lives; nothing once the lease is released.

        Raises:
            LeaseLost: as `check`; nothing is written then.
            OSError: the claim could not be written. The lease is not lost by it, as long as a later renewal comes in time.
        """
        with self._lock:
            if not self._claim.released:
                self.check()
                self._save(self._claim)

    def set_base(self, step: int) -> None:
        """Record the step of the checkpoint this writer goes on from, before it saves any (0 for a new run).

        Raises:
            LeaseLost, OSError: as `renew`.
        """
        with self._lock:
            assert not self._claim.released, self.number
            self.check()
            self._save(replace(self._claim, base_step=step))
            # a successor that came in between chose without knowing this base: no checkpoint may follow from it
            self.check()

    def release(self) -> None:
        """Let the next start begin at once. Never fails: that start only has to wait otherwise."""
        with self._lock:
            try:
                self.check()
                self._save(replace(self._claim, released=True))
            except LeaseLost:
                return
            except OSError as error:
                log.warning("%s: the lease could not be released (%s); the next start waits", self._folder, error)

    def _save(self, claim: Claim) -> None:
        # remembered first: should the write fail after its rename, the next beat must still differ
        self._claim = claim = replace(claim, beat=claim.beat + 1)
        path = _claim_path(self._folder, number=self.number)
        temporary = path.with_suffix(".tmp")  # one name, so that a kill here leaves one file at most
        _write(temporary, content=_CLAIM.dump_json(claim))
        temporary.replace(path)
        _sync(path.parent)

    def _lost(self, to: str) -> LeaseLost:
        return LeaseLost(
            f"{self._folder}: lease {self.number} was lost to {to}; this process must not write there any more. The run "
            "goes on from its newest checkpoint wherever it was started again"
        )


def acquire(
    folder: Path,
    *,
    holder: Holder,
    stale_seconds: float,
    is_start: bool = True,
    job: str = "",
    restart: int = 0,
    process_start: Callable[[int], int | None] = process_start,
    sleep: Callable[[float], None] = time.sleep,
) -> Lease:
    """The lease of a run folder, which is made if need be.

    At once if nobody holds it; after up to `stale_seconds` if the last holder was on another host, is not known to have
    ended and gives no sign of life. An earlier start of the same `job` has as long to end, and is then followed although it
    lives: on a node that was cut off it may go on for long, while the scheduler has ended it and counts a `restart`.

    Raises:
        LeaseHeld: somebody else holds it.
        UserError: the folder cannot be written.
    """
    with _explained(folder):
        (folder / DIRECTORY).mkdir(parents=True, exist_ok=True)
        while True:
            number = max(_claim_numbers(folder), default=0)
            claim = Claim(number=number + 1, holder=holder, is_start=is_start, job=job, restart=restart)

            def is_over(number: int = number, claim: Claim = claim) -> bool:
                return _is_over(folder, number=number, successor=claim, process_start=process_start)

            if number and not is_over():
                _outwait(folder, successor=claim, is_over=is_over, stale_seconds=stale_seconds, sleep=sleep)
            if _create(folder, claim=claim):
                return Lease(folder, claim=claim)


def read_claims(folder: Path) -> list[Claim]:
    """All claims on a run folder in order of number; a malformed one has no holder, and no base step."""
    return [_load_claim(folder, number=number) for number in _claim_numbers(folder)]


def is_superseded(claims: Sequence[Claim], *, lease: int, step: int) -> bool:
    """Whether the checkpoint that a lease saved at a step was left aside: a later writer went on from an earlier step.

    So is what a writer commits after its takeover, cut off and unaware of it: its step is past its successor's base.
    """
    return any(claim.number > lease and claim.base_step is not None and claim.base_step < step for claim in claims)


def request_stop(folder: Path, *, number: int) -> None:
    """Tell all ranks of one attempt to stop where they do not meet step by step; a later attempt has another number."""
    _stop_path(folder, number=number).touch()


def is_stop_requested(folder: Path, *, number: int) -> bool:
    """Whether a rank of this attempt asked for a stop."""
    path = _stop_path(folder, number=number)
    # by the list, since NFS remembers for a minute that a name was absent, but asks anew when a directory is opened
    return path.name in os.listdir(path.parent)


def _is_over(folder: Path, *, number: int, successor: Claim, process_start: Callable[[int], int | None]) -> bool:
    """Whether a claim is known to have ended; LeaseHeld if its process is known to live and has a right to."""
    claim = _load_claim(folder, number=number)
    if claim.released:
        return True
    former, holder = claim.holder, successor.holder
    if former is None or holder is None or not holder.may_see(former):
        return False
    start = process_start(former.pid)
    if start == former.process_start:
        if claim.is_former_start(of=successor):
            return False
        raise _held(folder, claim=claim)
    return start != HIDDEN


def _outwait(
    folder: Path,
    *,
    successor: Claim,
    is_over: Callable[[], bool],
    stale_seconds: float,
    sleep: Callable[[float], None],
) -> None:
    """Return when the claim before `successor` is stale, over, followed by another, or had its time to end."""
    number = successor.number - 1
    first = _load_claim(folder, number=number)
    first_mtime = _mtime(_claim_path(folder, number=number))
    if _file_system_time(folder) - first_mtime > stale_seconds:
        return
    holder = _name(first.holder)
    log.warning("%s: lease %d of %s was not released; watching it for %.0f s", folder, number, holder, stale_seconds)
    pause = min(1.0, stale_seconds / 10)
    watched = 0.0  # by the pauses, so that a suspended watcher has not watched
    lives = False
    while watched < stale_seconds:
        sleep(pause)
        watched += pause
        if is_over() or max(_claim_numbers(folder), default=0) != number:
            return
        now = _load_claim(folder, number=number)
        # the file's time as well: the beat of a claim that may not be read is not seen
        lives = now.beat != first.beat or _mtime(_claim_path(folder, number=number)) != first_mtime
        if lives and not now.is_former_start(of=successor):
            raise _held(folder, claim=now)
    if lives:
        log.warning(
            "%s: %s still writes there, but is an earlier start of this job, which Slurm has ended: it is cut off",
            folder,
            holder,
        )


def _create(folder: Path, *, claim: Claim) -> bool:
    """Make a claim's file with its content at once; False if somebody was faster."""
    path = _claim_path(folder, number=claim.number)
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


def _create_without_link(path: Path, *, claim: Claim) -> bool:
    # for a moment the claim is empty, which others take for a holder they do not know
    try:
        _write(path, content=_CLAIM.dump_json(claim), mode="xb")
    except FileExistsError:
        return False
    _sync(path.parent)
    return True


def _claim_path(folder: Path, *, number: int) -> Path:
    return folder / DIRECTORY / f"{number:08d}.json"


def _stop_path(folder: Path, *, number: int) -> Path:
    return folder / DIRECTORY / f"{number:08d}.stop"


def _claim_numbers(folder: Path) -> list[int]:
    try:
        names = os.listdir(folder / DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return []
    numbers = {int(match[1]) for name in names if (match := _CLAIM_NAME.fullmatch(name))}
    return sorted(number for number in numbers if _claim_path(folder, number=number).name in names)


def _load_claim(folder: Path, *, number: int) -> Claim:
    try:
        claim = _CLAIM.validate_json(_read(_claim_path(folder, number=number)), strict=True)
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


def _mtime(path: Path) -> float:
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


def _file_system_time(folder: Path) -> float:
    probe = folder / DIRECTORY / f"{uuid.uuid4().hex}.tmp"
    try:
        _write(probe, content=b"\n")
        return _mtime(probe)
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


def _name(holder: Holder | None) -> str:
    return str(holder) if holder else "an unknown process (its claim cannot be read)"


def _held(folder: Path, *, claim: Claim) -> LeaseHeld:
    stop = f"stop it (kill {claim.holder.pid} on {claim.holder.host})" if claim.holder else "stop it"
    if job := claim.job.rpartition("/")[2]:
        stop = f"cancel its job (scancel {job}; a member of a sweep as squeue --jobs {job} calls it)"
    return LeaseHeld(
        f"{folder}: this run folder is being written by {_name(claim.holder)} (lease {claim.number}); wait for it to end, "
        f"{stop}, or give another output_dir"
    )


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        raise UserError(
            f"{folder}: the run folder cannot be written ({error.strerror}{where}); make it writable, free some space, or "
            "give another output_dir"
        ) from error
