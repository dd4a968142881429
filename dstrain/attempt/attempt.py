"""One start of a run, an attempt: takes the lease and starts the watchdog; records the outcome at its end."""

import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from dstrain.attempt.ends import keep_last_end
from dstrain.attempt.lease import Lease, LeaseHeld, LeaseLost, acquire
from dstrain.attempt.rank_records import Drill, Phases, ranks_dir, read_rank_records
from dstrain.attempt.watchdog import REPORT_SECONDS, Renewal, Watchdog, end_process, run_within, start_watchdog
from dstrain.cluster.environment import ProcessInfo, read_start
from dstrain.cluster.exit_codes import EXIT_INTERRUPTED, EXIT_PREEMPTED
from dstrain.cluster.process_group import Ranks
from dstrain.cluster.processes import this_process
from dstrain.cluster.signals import catch_saving_signals
from dstrain.config.machine import Machine
from dstrain.errors import UserError
from dstrain.run_folder.claims import claim_numbers, is_stop_requested, load_claim, request_stop
from dstrain.run_folder.outcome import RunOutcome, has_begun, reserve_end, write_bad_end, write_end, write_outcome

SHARED_SECONDS, SHARED_POLL_SECONDS = 60.0, 0.5
"""How long a rank waits to see what rank 0 has written, and how often it looks: a file system may be slow to show it."""
RENEWALS = 4
"""Renewals of the lease within the time after which it is stale, so that one or two may fail."""


@dataclass(frozen=True)
class Attempt:
    """One start of a run on one rank: its lease, its record, its watchdog and its outcome."""

    run_dir: Path
    ranks: Ranks
    number: int
    """The number of the lease."""
    lease: Lease | None
    """On rank 0 only; None elsewhere."""
    phases: Phases
    watchdog: Watchdog

    def check_lease(self) -> None:
        """Check that this attempt may still write to the run folder.

        Raises:
            LeaseLost: another attempt has taken the folder over, or it was moved or removed.
        """
        if self.lease is None:
            return
        try:
            self.lease.check()
        except FileNotFoundError as error:
            raise LeaseLost(f"{self.run_dir} was moved or removed while this run was writing to it") from error

    def set_base(self, step: int) -> None:
        """Record the step that this attempt begins from. Checkpoints that earlier attempts commit after this are ignored."""
        if self.lease is not None:
            self.lease.set_base(step)

    def begin(self) -> None:
        """Record that this attempt runs, before it changes anything of the run: until now it might have been refused."""
        self.report(RunOutcome("running", None, attempt=self.number))

    def request_stop(self) -> None:
        """Request all ranks of this attempt to stop, through a file in the run folder."""
        request_stop(self.run_dir, number=self.number)

    def is_stop_requested(self) -> bool:
        """Whether a rank of this attempt has requested a stop."""
        return is_stop_requested(self.run_dir, number=self.number)

    def report(self, outcome: RunOutcome) -> None:
        """Write the outcome of this attempt, on rank 0."""
        if self.ranks.rank == 0:
            write_outcome(self.run_dir, outcome)

    def catch_signals(self) -> None:
        """Until training begins there is nothing to save: end this rank at once on a signal, and keep the reason."""

        def end(number: int, frame: FrameType | None) -> None:
            code = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_PREEMPTED
            message = f"received {signal.Signals(number).name} before training began"

            def report() -> None:
                write_bad_end(self.run_dir, RunOutcome("preempted", code, message, attempt=self.number))
                self.phases.end(message)

            run_within(
                REPORT_SECONDS, report
            )  # in a thread: the code that the signal has interrupted may hold its locks
            os._exit(code)

        catch_saving_signals(end)
        signal.signal(signal.SIGINT, end)

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
    """Take the run folder's lease and start the watchdog; a collective call. `environment` names the Slurm job.

    Raises:
        UserError: another attempt is writing to the folder, or it is not writable.
    """
    job, restart, launch = read_start(environment)
    # before the lease: after it the ranks of this attempt replace these records
    records = read_rank_records(ranks_dir(run_dir)) if ranks.rank == 0 else []
    lease, number = take_lease(
        run_dir, ranks=ranks, stale_seconds=machine.lease_seconds, job=job, restart=restart, launch=launch
    )
    phases = Phases(ranks_dir(run_dir), rank=ranks.rank, attempt=number, drill=drill)

    def end(code: int, message: str) -> None:
        _end(run_dir, code=code, message=message, attempt=number, phases=phases)

    renewal = None
    if lease is not None:
        keep_last_end(run_dir, before=number, records=records)
        reserve_end(run_dir, attempt=number)
        renewal = Renewal(
            lease.renew,
            every_seconds=machine.lease_seconds / RENEWALS,
            on_lost=lambda error: end(1, str(error)),
        )
    watchdog = start_watchdog(
        phases,
        run_dir=run_dir,
        local_ranks=local_ranks(ranks.process),
        limits=limits_in_seconds(machine),
        renewal=renewal,
        end=end,
    )
    attempt = Attempt(run_dir, ranks, number, lease, phases, watchdog)
    if ranks.rank == 0 and not has_begun(run_dir):
        attempt.begin()
    phases.enter("set-up")
    return attempt


def limits_in_seconds(machine: Machine) -> dict[str, float]:
    """The watchdog's time limits by class of phase; 0 is no limit."""
    values = machine.watchdog.model_dump()
    return {name.removesuffix("_minutes"): minutes * 60 for name, minutes in values.items()}


def local_ranks(process: ProcessInfo) -> Sequence[int]:
    """All ranks of this host; launchers number them consecutively."""
    first = process.rank - process.local_rank
    return range(first, first + process.local_world_size)


def take_lease(
    folder: Path, *, ranks: Ranks, stale_seconds: float, job: str = "", restart: int = 0, launch: int = 0
) -> tuple[Lease | None, int]:
    """Acquire the lease of a folder on rank 0; a collective call. Arguments are those of `acquire`.

    Returns the lease, None on other ranks, and its number, on all ranks.

    Raises:
        UserError: another process holds it, the folder cannot be written, or another rank does not see what rank 0 writes there.
    """
    lease, refusal = None, None
    if ranks.rank == 0:
        try:
            lease = acquire(
                folder, holder=this_process(), stale_seconds=stale_seconds, job=job, restart=restart, launch=launch
            )
        except UserError as error:
            refusal = error
    number, message = ranks.broadcast(
        (lease.number if lease else 0, str(refusal) if refusal else None), tuple[int, str | None]
    )
    if message is not None:
        raise refusal or LeaseHeld(message)
    if (message := _unshared(folder, number=number, ranks=ranks)) is not None:
        if lease is not None:
            lease.release()
        raise UserError(message)
    return lease, number


def _unshared(folder: Path, *, number: int, ranks: Ranks) -> str | None:
    """Why the ranks do not share this folder: who does not see rank 0's lease there. None if all see it; a collective call."""

    def read_holder() -> dict[str, Any] | None:
        # listed first: NFS caches for a minute that a name was absent, but reads a directory again when it is opened
        holder = load_claim(folder, number=number).holder if number in claim_numbers(folder) else None
        return asdict(holder) if holder is not None else None

    holder = ranks.broadcast(read_holder(), dict[str, Any])
    waited = 0.0
    while not (is_seen := read_holder() == holder) and waited < SHARED_SECONDS:
        time.sleep(SHARED_POLL_SECONDS)
        waited += SHARED_POLL_SECONDS
    hosts = ranks.gather(None if is_seen else socket.gethostname(), str | None)
    blind = [f"rank {rank} on {host}" for rank, host in enumerate(hosts or []) if host is not None]
    first: str | None = ranks.broadcast(blind[0] if blind else None, str | None)
    return first and (
        f"{folder}: {first} does not see what rank 0 writes there; choose an output_dir on a file system "
        "that all nodes share, and start every rank in the same directory or write the whole path"
    )


def _end(run_dir: Path, *, code: int, message: str, attempt: int, phases: Phases) -> None:
    def report() -> None:
        phases.end(message)
        outcome = RunOutcome("lost", code, message, attempt=attempt)
        if code == EXIT_PREEMPTED:
            write_bad_end(run_dir, outcome)
        else:  # an attempt that lost its lease leaves the folder to the new writer
            write_end(run_dir, outcome)

    run_within(REPORT_SECONDS, report)  # with a deadline: the file system may be what hangs
    end_process(code, message)
