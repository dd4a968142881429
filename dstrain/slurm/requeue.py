"""Whether a Slurm job that came to an end is started again, and why one was: decided from values.

Owns `<run>/slurm.jsonl`, one line a start and one an end of the batch script, a few hundred bytes in all. Calls nothing of
Slurm's, and knows neither torch nor checkpoints: whoever calls it brings what Slurm says, and steps.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from dstrain.cluster.exit_codes import EXIT_FAILED, EXIT_PREEMPTED

HISTORY_FILE = "slurm.jsonl"

MAX_FRUITLESS = 3
"""Starts in a row that saved nothing new."""
SOON_SECONDS = 3600.0
"""A signal that comes earlier than this before the end is no warning of it, but somebody's wish."""
KILLED = 128
"""Above it lies 128 + the signal that ended a task. The largest code of all tasks is srun's."""

Cause = Literal["time limit", "preemption", "node failure", "requeue by hand", "cancelled", "its own end", "unknown"]
BY_SLURM = ("preemption", "node failure", "requeue by hand")
"""After these Slurm starts the job again by itself."""
EXCUSED = ("preemption", "requeue by hand")
"""Not the run's fault, however often it happens; a run may well be what breaks its nodes."""


@dataclass(frozen=True, slots=True)
class JobStart:
    """The batch script began. `step` is that of the newest checkpoint, `last_report` the time of the newest failure report."""

    job: str
    restart: int
    step: int
    cause: str
    last_report: int = 0
    time: str = ""
    kind: Literal["start"] = "start"


@dataclass(frozen=True, slots=True)
class JobEnd:
    """What ended a start of a job; `source` names who said so."""

    job: str
    restart: int
    cause: Cause
    source: str
    again: bool
    """Whether the batch script asked Slurm to start the job again."""
    code: int | None = None
    """Exit code of srun, where it had ended by then."""
    time: str = ""
    kind: Literal["end"] = "end"


Entry = JobStart | JobEnd
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to ask for a requeue, the exit code of the batch script, and both in words."""

    requeue: bool
    exit_code: int
    reason: str


def decide(*, code: int, failure: str | None, num_fruitless: int, max_fruitless: int, warned: bool = False) -> Decision:
    """What to do after srun has ended by itself.

    Args:
        code: srun's exit code.
        failure: what a rank of this start reported before it ended by an error of its own. Its peers may have ended with the
            larger code 85, because all they know is that it was gone.
        num_fruitless: starts of this job in a row, this one included, since the newest checkpoint was saved.
        warned: whether Slurm warned of the time limit.
    """
    if code == 0:
        return Decision(False, 0, "finished")
    if failure is not None:
        return Decision(
            False, code if code < EXIT_PREEMPTED else EXIT_FAILED, f"not requeued, because it failed: {failure}"
        )
    if code != EXIT_PREEMPTED and code <= KILLED:
        return Decision(False, code, f"not requeued, because it failed with exit code {code}: the message stands above")
    if num_fruitless >= max_fruitless:
        return Decision(False, EXIT_FAILED, describe_fruitless(num_fruitless))
    why = "the time limit is near" if warned else f"exit code {code}"
    return Decision(True, EXIT_PREEMPTED, f"requeued ({why})")


def describe_fruitless(num_fruitless: int) -> str:
    """Why a job is not started again that gets nowhere."""
    return (
        f"not requeued: {num_fruitless} starts in a row saved nothing new; see above what ended them, give the job more "
        "time or checkpoint.every_steps a smaller number, and submit it again: it goes on from its newest checkpoint"
    )


def describe_early_warning(*, elapsed_seconds: float, left_seconds: float) -> str | None:
    """That a job was warned of its time limit before it could do much, and the way out; None for any other warning.

    A warning is due at once where the time limit is shorter than it, and then again after every restart.
    """
    if not elapsed_seconds <= left_seconds <= SOON_SECONDS:
        return None
    return (
        f"the time limit of {elapsed_seconds + left_seconds:.0f} s is too short for its warning, which came "
        f"{elapsed_seconds:.0f} s after the start: submit the job with a longer --time, or with a later warning, such as "
        "--signal=B:USR1@30"
    )


def count_fruitless(history: Sequence[Entry], *, job: str, step: int) -> int:
    """Starts of this job since the newest checkpoint, which is of `step`, was saved; without those that others cut short."""
    excused = {entry.restart for entry in history if isinstance(entry, JobEnd) and is_excused(entry, job=job)}
    starts = [entry for entry in history if isinstance(entry, JobStart) and entry.job == job]
    return sum(start.step == step and start.restart not in excused for start in starts)


def is_excused(end: JobEnd, *, job: str) -> bool:
    """Whether this end says nothing about the run."""
    return end.job == job and end.cause in EXCUSED


def find_end(history: Sequence[Entry], *, job: str, restart: int) -> JobEnd | None:
    """The first word about the end of a start: what follows is only its echo."""
    return next((e for e in history if isinstance(e, JobEnd) and (e.job, e.restart) == (job, restart)), None)


def is_followed(history: Sequence[Entry], *, job: str, restart: int) -> bool:
    """Whether the job was started again since: whoever asks lives on a node that Slurm has given up."""
    return any(isinstance(e, JobStart) and e.job == job and e.restart > restart for e in history)


def find_start(history: Sequence[Entry], *, job: str, restart: int) -> JobStart | None:
    """The line of a start."""
    return next((e for e in history if isinstance(e, JobStart) and (e.job, e.restart) == (job, restart)), None)


def describe_start(history: Sequence[Entry], *, job: str, restart: int, name: str | None = None) -> str:
    """Why a job starts now, and who says so; `name` is what Slurm calls it, where that is not its id."""
    called = f"job {name or job}"
    if restart == 0:
        return f"{called}, submitted to go on" if history else f"{called}, first start"
    end = find_end(history, job=job, restart=restart - 1)
    if end is None:
        why = "its batch script left no word: its node was lost, or it was killed at once"
    elif end.cause == "its own end":
        why = f"it had ended by itself: {end.source}"
    else:
        why = f"after {end.cause}; says {end.source}"
    return f"{called}, restart {restart} ({why})"


def read_cause(queue: str, *, restart: int, down_nodes: str) -> tuple[Cause, str]:
    """What Slurm's SIGTERM to a batch script means, and who says so.

    Args:
        queue: squeue's reason, time of preemption and restart count of the job, asked while the job is ending.
        restart: this start's own number, which squeue's exceeds once the job is to be started again.
        down_nodes: those of the job's nodes that sinfo lists as down.
    """
    fields = queue.split()
    if len(fields) != 3 or not fields[2].isdecimal():
        return "unknown", f"squeue, by {queue.strip()!r}"
    reason, preempted, restarts = fields
    if reason == "TimeLimit":
        return "time limit", "squeue, by its reason"
    if int(restarts) <= restart:
        return "cancelled", "squeue, by its restart count"
    if preempted != "N/A":
        return "preemption", "squeue, by its time of preemption"
    if down_nodes.strip():
        return "node failure", f"sinfo, by {','.join(dict.fromkeys(down_nodes.split()))}, which is down"
    return "requeue by hand", "squeue, by its restart count"


def read_history(run_dir: Path) -> list[Entry]:
    """What the batch scripts of a run have written; lines that are torn or of another version are passed over."""
    try:
        lines = (run_dir / HISTORY_FILE).read_bytes().splitlines()
    except OSError:
        return []
    return [entry for line in lines if (entry := _read_entry(line)) is not None]


def append_entry(run_dir: Path, entry: Entry) -> None:
    """Add a line to the history of a run, on disk when this returns."""
    # a new line first if the last one was torn
    path = run_dir / HISTORY_FILE
    torn = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with path.open("ab") as stream:
        stream.write((b"\n" if torn else b"") + json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())


def _read_entry(line: bytes) -> Entry | None:
    try:
        return _ENTRY.validate_json(line, strict=True)
    except ValidationError:
        return None
