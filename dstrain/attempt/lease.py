"""Holding a run folder: acquires, renews and releases its lease, so that one process at a time writes there.

The files are those of run_folder/claims.py. Knows nothing of checkpoints and ranks, or of when to renew.

A takeover adds a claim of the next number. So a process that was suspended meanwhile cannot overwrite the claim of its successor:
it renews its own file, finds the newer claim beside it, and ends.

A holder whose process is visible is judged by the process table. Any other holder, as on another host, is judged by whether it
renews its claim. That needs no clocks that agree: an age is the difference of two times of the file system. Lustre uses the clock
of the host that writes, so there the clocks of hosts must agree to well within `stale_seconds`.

Tested on local file systems with real processes that are stopped, killed, and in several pid namespaces. Other hosts are only
simulated: NFS and Lustre were not available, so their caches, repeated requests and clocks are handled as documented.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from dstrain.cluster.processes import HIDDEN, Holder, process_start
from dstrain.config.arguments import shell_command
from dstrain.errors import UserError
from dstrain.run_folder.claims import (
    Claim,
    claim_numbers,
    claim_path,
    create_claim,
    file_system_time,
    load_claim,
    mtime,
    save_claim,
)
from dstrain.run_folder.layout import RunFolder

log = logging.getLogger(__name__)


class LeaseHeld(UserError):
    """Another process holds the lease; the message names it and the way out."""

    is_said_by_rank_0 = True


class LeaseLost(UserError):
    """This process may not write to the run folder any more; the message names the new holder."""


class Lease:
    """The right to write to a run folder. Its methods may be called from several threads."""

    def __init__(self, folder: Path, *, claim: Claim) -> None:
        self._folder = folder
        self._claim = claim
        self._lock = threading.Lock()
        self.number = claim.number

    def check(self) -> None:
        """Check that this process still holds the lease. Call it right before something becomes visible to others.

        Raises:
            LeaseLost: a claim with a higher number exists, or this one was removed or replaced.
            OSError: the folder cannot be read, so the answer is unknown.
        """
        numbers = claim_numbers(self._folder)
        newest = max(numbers, default=0)
        if newest > self.number:
            raise self._lost(f"lease {newest} of {_name(load_claim(self._folder, number=newest).holder)}")
        if self.number not in numbers:
            raise self._lost(f"no process: {claim_path(self._folder, number=self.number)} was removed")
        # after the lease folder was emptied, another process starts again with the same number
        found = load_claim(self._folder, number=self.number).holder
        if found is not None and found != self._claim.holder:
            raise self._lost(f"another lease {self.number} of {_name(found)}")

    def renew(self) -> None:
        """Show that this process is alive. Does nothing once the lease is released.

        Raises:
            LeaseLost: as `check`; nothing is written then.
            OSError: the claim could not be written. The lease is kept if a later renewal succeeds in time.
        """
        with self._lock:
            if not self._claim.released:
                self.check()
                self._save(self._claim)

    def set_base(self, step: int) -> None:
        """Record the step of the checkpoint that this writer resumes from, 0 for a new run. Call it before the first save.

        Raises:
            LeaseLost, OSError: as `renew`.
        """
        with self._lock:
            assert not self._claim.released, self.number
            self.check()
            self._save(replace(self._claim, base_step=step))
            # a successor that came in between did not know this base: this writer must not save any checkpoint
            self.check()

    def release(self) -> None:
        """Let the next attempt begin at once. Never raises: if the release fails, the next attempt only has to wait."""
        with self._lock:
            try:
                self.check()
                self._save(replace(self._claim, released=True))
            except LeaseLost:
                return
            except OSError as error:
                log.warning(
                    "%s: the lease could not be released (%s); the next attempt waits until it is stale",
                    self._folder,
                    error,
                )

    def _save(self, claim: Claim) -> None:
        # kept before the write: if the write fails after its rename, the next beat must still differ
        self._claim = claim = replace(claim, beat=claim.beat + 1)
        save_claim(self._folder, claim=claim)

    def _lost(self, to: str) -> LeaseLost:
        return LeaseLost(
            f"{self._folder}: lease {self.number} was lost to {to}; this process must not write there any more. The run "
            "continues where it was started again, from its newest checkpoint"
        )


def acquire(
    folder: Path,
    *,
    holder: Holder,
    stale_seconds: float,
    is_start: bool = True,
    job: str = "",
    restart: int = 0,
    launch: int = 0,
    process_start: Callable[[int], int | None] = process_start,
    sleep: Callable[[float], None] = time.sleep,
) -> Lease:
    """Acquire the lease of a run folder, which is created if necessary.

    Returns at once if the lease is free. A holder that is not visible from here, as on another host, counts as dead after
    `stale_seconds` without a renewal. An attempt of the same scheduler job with a lower `restart`, or a lower `launch` of the
    same restart, also gets `stale_seconds` to end, and is then replaced even if it renews: the scheduler or the batch script has
    ended it, but on a node that was cut off it may run on.

    Raises:
        LeaseHeld: another process holds the lease.
        UserError: the folder cannot be written.
    """
    with _errors_for_the_user(folder):
        RunFolder(folder).claims.mkdir(parents=True, exist_ok=True)
        while True:
            number = max(claim_numbers(folder), default=0)
            claim = Claim(number + 1, holder, is_start=is_start, job=job, restart=restart, launch=launch)

            def is_over(number: int = number, claim: Claim = claim) -> bool:
                return _is_over(folder, number=number, successor=claim, process_start=process_start)

            if number and not is_over():
                _outwait(folder, successor=claim, is_over=is_over, stale_seconds=stale_seconds, sleep=sleep)
            if create_claim(folder, claim=claim):
                return Lease(folder, claim=claim)


def _is_over(folder: Path, *, number: int, successor: Claim, process_start: Callable[[int], int | None]) -> bool:
    """Whether the holder of a claim is known to have ended. Raises LeaseHeld if it is known to run and may keep the lease."""
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
    """Wait until the claim before `successor` is stale, over or followed by another claim, or its time to end has passed."""
    number = successor.number - 1
    first = load_claim(folder, number=number)
    first_mtime = mtime(claim_path(folder, number=number))
    if file_system_time(folder) - first_mtime > stale_seconds:
        return
    holder = _name(first.holder)
    log.warning("%s: lease %d of %s was not released; watching it for %.0f s", folder, number, holder, stale_seconds)
    pause = min(1.0, stale_seconds / 10)
    watched = 0.0  # the sum of the pauses, so that time in which this process was suspended does not count
    is_alive = False
    while watched < stale_seconds:
        sleep(pause)
        watched += pause
        if is_over() or max(claim_numbers(folder), default=0) != number:
            return
        now = load_claim(folder, number=number)
        # the file's time as well, for claims that may not be read
        is_alive = now.beat != first.beat or mtime(claim_path(folder, number=number)) != first_mtime
        if is_alive and not now.is_former_start(of=successor):
            raise _held(folder, claim=now)
    if is_alive:
        log.warning(
            "%s: %s still writes, but belongs to an earlier start of this job, which Slurm has ended: its lease is taken over",
            folder,
            holder,
        )


def _name(holder: Holder | None) -> str:
    return str(holder) if holder else "an unknown process (its claim cannot be read)"


def _held(folder: Path, *, claim: Claim) -> LeaseHeld:
    stop = f"stop it (kill {claim.holder.pid} on {claim.holder.host})" if claim.holder else "stop it"
    if job := claim.job.rpartition("/")[2]:
        cancel, ask = shell_command(["scancel", job]), shell_command(["squeue", "--jobs", job])
        stop = f"cancel its job ({cancel}; for a member of a sweep the id that {ask} shows)"
    return LeaseHeld(
        f"{folder}: this run folder is in use by {_name(claim.holder)} (lease {claim.number}); wait for it to end, "
        f"{stop}, or choose another output_dir"
    )


@contextmanager
def _errors_for_the_user(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        raise UserError(
            f"{folder}: the run folder cannot be written ({error.strerror}{where}); make it writable, free some space, or "
            "choose another output_dir"
        ) from error
