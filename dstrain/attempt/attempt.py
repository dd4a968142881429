"""One start of a run: its lease, the record of each rank, the watchdog and the outcome keep the run folder safe."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dstrain.attempt.lease import Lease, LeaseHeld, LeaseLost, acquire, is_stop_requested, request_stop
from dstrain.attempt.rank_records import Drill, Phases, ranks_dir
from dstrain.attempt.watchdog import REPORT_SECONDS, Watchdog, end_process, run_within, start_watchdog
from dstrain.cluster.environment import ProcessInfo, read_start
from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.cluster.process_group import Ranks
from dstrain.cluster.processes import this_process
from dstrain.config.machine import Machine
from dstrain.errors import UserError
from dstrain.run_folder.outcome import RunOutcome, read_outcome, write_bad_end, write_outcome

RENEWALS = 4
"""Renewals of the lease before it goes stale, so that one or two may fail."""


@dataclass(frozen=True)
class Attempt:
    """One start of a run, as one rank sees it: its lease, its record, its watchdog and its outcome."""

    run_dir: Path
    ranks: Ranks
    number: int
    """That of the lease."""
    lease: Lease | None
    """On rank 0 alone."""
    phases: Phases
    watchdog: Watchdog

    def check_lease(self) -> None:
        """Whether this start may still write.

        Raises:
            LeaseLost: another start has taken the folder over.
        """
        if self.lease is None:
            return
        try:
            self.lease.check()
        except FileNotFoundError as error:
            raise LeaseLost(f"{self.run_dir} was moved or removed while this run was writing to it") from error

    def set_base(self, step: int) -> None:
        """Record the step that this start begins from: what its predecessors commit later is never chosen."""
        if self.lease is not None:
            self.lease.set_base(step)
        # again, for a finished run: until now this start might have been refused
        self.report(RunOutcome("running", None, attempt=self.number))

    def request_stop(self) -> None:
        """Leave word for the other ranks that the run was told to stop."""
        request_stop(self.run_dir, number=self.number)

    def is_stop_requested(self) -> bool:
        """Whether a rank has left such word."""
        return is_stop_requested(self.run_dir, number=self.number)

    def report(self, outcome: RunOutcome) -> None:
        """Write the outcome of this start; rank 0 writes."""
        if self.ranks.rank == 0:
            write_outcome(self.run_dir, outcome)

    def close(self, reason: str) -> None:
        """Stop the watchdog and release the lease."""
        self.watchdog.stop()
        self.phases.end(reason)
        if self.lease is not None:
            self.lease.release()


def start_attempt(
    run_dir: Path,
    *,
    ranks: Ranks,
    machine: Machine,
    drill: Drill | None,
    environment: Mapping[str, str] = os.environ,
) -> Attempt:
    """Take the run folder's lease and start the watchdog; a collective call. `environment` tells which job this is.

    Raises:
        UserError: another start is writing to the folder, or it cannot be written to.
    """
    job, restart = read_start(environment)
    lease, number = take_lease(run_dir, ranks=ranks, stale_seconds=machine.lease_seconds, job=job, restart=restart)
    phases = Phases(ranks_dir(run_dir), rank=ranks.rank, attempt=number, drill=drill)

    def end(code: int, message: str) -> None:
        _end(run_dir, code=code, message=message, attempt=number, phases=phases)

    watchdog = start_watchdog(
        phases,
        run_dir=run_dir,
        local_ranks=local_ranks(ranks.process),
        limits=limits_in_seconds(machine),
        renew=lease.renew if lease is not None else None,
        renew_seconds=machine.lease_seconds / RENEWALS,
        on_lost=lambda error: end(1, str(error)),
        end=end,
    )
    attempt = Attempt(run_dir, ranks, number, lease, phases, watchdog)
    before = read_outcome(run_dir) if ranks.rank == 0 else None
    if before is None or before.outcome != "finished":
        attempt.report(RunOutcome("running", None, attempt=number))
    phases.enter("set-up")
    return attempt


def limits_in_seconds(machine: Machine) -> dict[str, float]:
    """The watchdog's limits by class of phase; 0 is none."""
    values = machine.watchdog.model_dump()
    return {name.removesuffix("_minutes"): minutes * 60 for name, minutes in values.items()}


def local_ranks(process: ProcessInfo) -> Sequence[int]:
    """The ranks of this host, as launchers number them."""
    first = process.rank - process.local_rank
    return range(first, first + process.local_world_size)


def take_lease(
    folder: Path, *, ranks: Ranks, stale_seconds: float, job: str = "", restart: int = 0
) -> tuple[Lease | None, int]:
    """The lease of a folder, on rank 0 alone, and its number; a collective call with arguments as those of `acquire`.

    Raises:
        UserError: another process holds it, or the folder cannot be written.
    """
    lease, refusal = None, None
    if ranks.rank == 0:
        try:
            lease = acquire(folder, holder=this_process(), stale_seconds=stale_seconds, job=job, restart=restart)
        except UserError as error:
            refusal = error
    number, message = ranks.broadcast((lease.number if lease else 0, str(refusal) if refusal else None))
    if message is not None:
        raise refusal or LeaseHeld(message)
    return lease, number


def _end(run_dir: Path, *, code: int, message: str, attempt: int, phases: Phases) -> None:
    def leave_word() -> None:
        phases.end(message)
        if code == EXIT_PREEMPTED:  # whoever lost the lease must leave the folder to its new writer
            write_bad_end(run_dir, RunOutcome("lost", code, message, attempt=attempt))

    run_within(REPORT_SECONDS, leave_word)  # the file system may be what hangs
    end_process(code, message)
