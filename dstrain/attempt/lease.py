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

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from dstrain.cluster.processes import HIDDEN, Holder, process_start
from dstrain.errors import UserError
from dstrain.run_folder.claims import (
    DIRECTORY,
    Claim,
    claim_numbers,
    claim_path,
    create_claim,
    file_system_time,
    load_claim,
    mtime,
    save_claim,
)

log = logging.getLogger(__name__)


class LeaseHeld(UserError):
    """Another process writes this run folder; the message names it and the way out."""

    is_said_by_rank_0 = True


class LeaseLost(UserError):
    """This process may not write the run folder any more; the message names who may."""


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
        numbers = claim_numbers(self._folder)
        newest = max(numbers, default=0)
        if newest > self.number:
            raise self._lost(f"lease {newest} of {_name(load_claim(self._folder, number=newest).holder)}")
        if self.number not in numbers:
            raise self._lost(f"nobody: {claim_path(self._folder, number=self.number)} was removed")
        # somebody who finds an emptied folder begins to count anew
        found = load_claim(self._folder, number=self.number).holder
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
        save_claim(self._folder, claim=claim)

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
            number = max(claim_numbers(folder), default=0)
            claim = Claim(number=number + 1, holder=holder, is_start=is_start, job=job, restart=restart)

            def is_over(number: int = number, claim: Claim = claim) -> bool:
                return _is_over(folder, number=number, successor=claim, process_start=process_start)

            if number and not is_over():
                _outwait(folder, successor=claim, is_over=is_over, stale_seconds=stale_seconds, sleep=sleep)
            if create_claim(folder, claim=claim):
                return Lease(folder, claim=claim)


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
    claim = load_claim(folder, number=number)
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
    first = load_claim(folder, number=number)
    first_mtime = mtime(claim_path(folder, number=number))
    if file_system_time(folder) - first_mtime > stale_seconds:
        return
    holder = _name(first.holder)
    log.warning("%s: lease %d of %s was not released; watching it for %.0f s", folder, number, holder, stale_seconds)
    pause = min(1.0, stale_seconds / 10)
    watched = 0.0  # by the pauses, so that a suspended watcher has not watched
    lives = False
    while watched < stale_seconds:
        sleep(pause)
        watched += pause
        if is_over() or max(claim_numbers(folder), default=0) != number:
            return
        now = load_claim(folder, number=number)
        # the file's time as well: the beat of a claim that may not be read is not seen
        lives = now.beat != first.beat or mtime(claim_path(folder, number=number)) != first_mtime
        if lives and not now.is_former_start(of=successor):
            raise _held(folder, claim=now)
    if lives:
        log.warning(
            "%s: %s still writes there, but is an earlier start of this job, which Slurm has ended: it is cut off",
            folder,
            holder,
        )


def _stop_path(folder: Path, *, number: int) -> Path:
    return folder / DIRECTORY / f"{number:08d}.stop"


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
