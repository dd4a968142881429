"""Reports the failure of a rank: on the terminal, in `failures/` and as the outcome of the run.

Imports no torch: the class of the error says what it means.
"""

import re
import time
import traceback
from pathlib import Path

from dstrain.attempt.lease import LeaseHeld, LeaseLost
from dstrain.attempt.rank_records import ranks_dir, read_rank_records
from dstrain.cluster.console import say
from dstrain.cluster.environment import ProcessInfo
from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.cluster.processes import this_process
from dstrain.config.schema import RunConfig
from dstrain.errors import HardwareFailed, PeerLost, UserError
from dstrain.run_folder.atomic import NO_ROOM, write_file
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.outcome import RunOutcome, read_outcome, write_bad_end
from dstrain.run_folder.reading import read_bytes

DEVICE_FAILED = "the device of rank {rank} on {host} failed"
"""How the message about a failed device begins; `broken_host` reads it."""
AGAIN = "the same command resumes from the newest checkpoint"
PEER_SECONDS = 5.0
"""How long a rank that lost a peer waits for that peer's report."""


def report_failure(error: Exception, *, config: RunConfig, process: ProcessInfo, is_restart: bool = False) -> int:
    """Report on the terminal and in the run folder why this rank failed; return its exit code.

    A UserError and a full disk are printed as a message, a lost peer as one line, any other error with its traceback. The exit
    code is EXIT_PREEMPTED ("start me again") if a peer was lost without a report, as when its node failed, if a device failed, or
    if a scheduler restarts a job while an earlier attempt still holds the folder: that attempt may end soon.
    """
    run_dir = Path(config.run_dir)
    if isinstance(error, PeerLost):
        return _report_lost_peer(error, run_dir=run_dir, process=process)
    if isinstance(error, HardwareFailed):
        message = f"{DEVICE_FAILED.format(rank=process.rank, host=this_process().host)}: {error}"
        return _report_lost(message, run_dir=run_dir, rank=process.rank)
    full = "".join(traceback.format_exception(error))
    if not isinstance(error, LeaseHeld | LeaseLost):  # the folder belongs to another attempt
        _write_report(full, error=error, run_dir=run_dir, rank=process.rank)
    code = EXIT_PREEMPTED if isinstance(error, LeaseHeld) and is_restart else 1
    if process.rank != 0 and isinstance(error, UserError) and error.is_said_by_rank_0:
        return code
    text = _describe(error, full=full)
    report = RunFolder(run_dir).failures / f"rank-{process.rank}.txt"
    if text == full and report.is_file():
        text = f"{text.rstrip()}\n{report} has this too; once the cause is mended, {AGAIN}"
    say(f"rank {process.rank} failed:\n{text}" if process.world_size > 1 else text, err=True)
    return code


def _describe(error: Exception, *, full: str) -> str:
    said = error if isinstance(error, UserError) else _name_full_disk(error)
    return f"error: {said}" if said else full


def _name_full_disk(error: Exception) -> str | None:
    if isinstance(error, OSError) and error.errno in NO_ROOM and error.filename:
        return f"{error.filename} cannot be written ({error.strerror}): free some space and start again"
    return None


def newest_report(run_dir: Path) -> tuple[int, str | None]:
    """Time of the newest failure report, in nanoseconds of the file system's clock, and its last line; (0, None) if none."""
    reports = [(path.lstat().st_mtime_ns, path) for path in RunFolder(run_dir).failures.glob("rank-*.txt")]
    if not reports:
        return 0, None
    time, path = max(reports)
    try:
        lines = read_bytes(path).decode(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return time, f"{path.stem.replace('-', ' ')}: {lines[-1] if lines else 'an error without a message'}"


def broken_host(message: str) -> str | None:
    """The host whose device failed, if a message about the end of a run says so."""
    match = re.match(DEVICE_FAILED.format(rank=r"\d+", host=r"(\S+)"), message)
    return match[1] if match else None


def _report_lost_peer(error: PeerLost, *, run_dir: Path, process: ProcessInfo) -> int:
    rank = process.rank
    if culprit := _wait_for_report(RunFolder(run_dir).failures, since=time.time() - PEER_SECONDS):
        say(f"rank {rank} ends because {culprit} failed", err=True)
        return 1
    # the watchdog knows more about the ranks of this host: it may end this process first, with a better message
    time.sleep(PEER_SECONDS)
    outcome, attempt = read_outcome(run_dir), _own_attempt(run_dir, rank=rank)
    if outcome is not None and outcome.outcome in ("lost", "failed") and outcome.attempt == attempt > 0:
        has_failed = outcome.outcome == "failed"  # without a report, as on a full disk
        why = "failed" if has_failed else "has lost a rank"
        say(f"rank {rank} ends because the run {why}: {outcome.message}", err=True)
        return 1 if has_failed else EXIT_PREEMPTED
    peer = f"rank {1 - rank}, which" if process.world_size == 2 else "a rank that"
    return _report_lost(
        f"rank {rank} lost its connection to {peer} reported nothing: {error}", run_dir=run_dir, rank=rank
    )


def _report_lost(message: str, *, run_dir: Path, rank: int) -> int:
    """Report a fault outside of the program. It leaves no failure report, which would tell Slurm's script not to requeue."""
    write_bad_end(run_dir, RunOutcome("lost", EXIT_PREEMPTED, message, attempt=_own_attempt(run_dir, rank=rank)))
    say(f"{message}; start it again: {AGAIN}", err=True)
    return EXIT_PREEMPTED


def _write_report(full: str, *, error: Exception, run_dir: Path, rank: int) -> None:
    problem = None
    try:
        write_file(RunFolder(run_dir).failures / f"rank-{rank}.txt", full)
    except OSError as caught:
        problem = caught.strerror
    attempt = _own_attempt(run_dir, rank=rank)
    end = RunOutcome("failed", 1, f"rank {rank}: {_name_full_disk(error) or error}", attempt=attempt)
    write_bad_end(run_dir, end, is_refusal=isinstance(error, UserError))
    if problem is not None:  # said last: what is printed may be a file on the same full disk
        say(f"the failure report could not be written to {run_dir}: {problem}", err=True)


def _own_attempt(run_dir: Path, *, rank: int) -> int:
    """The attempt that this process belongs to, from its own record; 0 without one."""
    own = this_process()
    records = read_rank_records(ranks_dir(run_dir), ranks=[rank])
    ours = (own.host, own.pid_namespace, own.pid, own.process_start)
    return next(
        (each.attempt for each in records if (each.host, each.pid_namespace, each.pid, each.process_start) == ours), 0
    )


def _wait_for_report(reports: Path, *, since: float) -> str | None:
    deadline = time.monotonic() + PEER_SECONDS
    while time.monotonic() < deadline:
        for report in reports.glob("rank-*.txt"):
            if report.lstat().st_mtime >= since:
                return report.stem.replace("-", " ")
        time.sleep(0.1)
    return None
