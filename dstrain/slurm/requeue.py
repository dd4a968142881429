"""Decides whether a Slurm job that ended is requeued, and describes why a job was started; from values alone.

Owns `<run>/slurm.jsonl`, with one line per start and one per end of the batch script. Runs no Slurm commands and knows neither
torch nor checkpoints: the caller passes the output of the commands and the step numbers.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from dstrain.cluster.exit_codes import EXIT_FAILED, EXIT_PREEMPTED
from dstrain.run_folder.atomic import append_line
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import read_bytes

MAX_FRUITLESS = 3
"""Starts in a row that save nothing new; then the job is not requeued any more."""
MAX_FRUITLESS_HERE = 2
"""Such starts after which the job is requeued, although enough of its nodes are left."""
SOON_SECONDS = 3600.0
"""A signal earlier than this before the end is not Slurm's warning: a user sent it."""
KILLED = 128
"""Exit codes above this are 128 + the signal that ended a task. srun exits with the largest code of all tasks."""

Cause = Literal["time limit", "preemption", "node failure", "requeue by hand", "cancelled", "its own end", "unknown"]
BY_SLURM = ("preemption", "node failure", "requeue by hand")
"""Causes after which Slurm itself starts the job again."""
EXCUSED = ("preemption", "requeue by hand")
"""Causes that never count as fruitless. Node failures are not among them: the run itself may be what breaks its nodes."""


JobId = Annotated[str, Field(pattern=r"^[0-9_]+$")]
"""Slurm's id of a job, which commands are shown with."""


@dataclass(frozen=True, slots=True)
class JobStart:
    """A start of the ranks, with what was newest by then: the step of a checkpoint, the time of a failure report, an attempt."""

    job: JobId
    restart: int
    step: int
    cause: str
    last_report: int = 0
    last_attempt: int = 0
    time: str = ""
    launch: int = 0
    """How often the batch script had started the ranks again in this allocation, after nodes were lost."""
    nodes: str = ""
    """The nodes of the ranks, separated by commas; empty if the batch script did not say."""
    kind: Literal["start"] = "start"


@dataclass(frozen=True, slots=True)
class JobEnd:
    """Why a start of a job ended; `source` says how that is known."""

    job: JobId
    restart: int
    cause: Cause
    source: str
    again: bool
    """Whether the batch script asked Slurm to start the job again, or started the ranks again itself."""
    code: int | None = None
    """Exit code of srun; None if it was still running."""
    time: str = ""
    launch: int = 0
    """As in JobStart."""
    kind: Literal["end"] = "end"


Entry = JobStart | JobEnd
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to request a requeue, the exit code of the batch script, and the reason for the log."""

    requeue: bool
    exit_code: int
    reason: str


def decide(*, code: int, failure: str | None, num_fruitless: int, max_fruitless: int, warned: bool = False) -> Decision:
    """What to do after srun has ended on its own.

    Args:
        code: srun's exit code.
        failure: the error that a rank of this start reported, if any. It outweighs `code`: the peers of a failed rank only
            lose their connection to it, and may end with the larger code 85.
        num_fruitless: starts of this job in a row, including this one, since the newest checkpoint was saved.
        max_fruitless: number of such starts after which the job is given up.
        warned: whether Slurm signalled that the time limit is near.
    """
    if code == 0:
        return Decision(False, 0, "finished")
    if failure is not None:
        return Decision(
            False, code if code < EXIT_PREEMPTED else EXIT_FAILED, f"not requeued, because it failed: {failure}"
        )
    if code != EXIT_PREEMPTED and code <= KILLED:
        return Decision(False, code, f"not requeued, because it failed with exit code {code}: see the message above")
    if num_fruitless >= max_fruitless:
        return Decision(False, EXIT_FAILED, describe_fruitless(num_fruitless))
    why = "the time limit is near" if warned else f"exit code {code}"
    return Decision(True, EXIT_PREEMPTED, f"requeued ({why})")


def describe_fruitless(num_fruitless: int) -> str:
    """The message for a job that is given up because its starts make no progress."""
    return (
        f"not requeued: {num_fruitless} starts in a row saved nothing new; see above why they ended, raise the job's --time "
        "or lower checkpoint.every_steps, and submit the job again: it resumes from its newest checkpoint"
    )


def describe_early_warning(*, elapsed_seconds: float, left_seconds: float) -> str | None:
    """The message for a warning that came in the first half of the allocation; None for any other signal.

    If the time limit is shorter than the requested warning time, Slurm warns at once, and does so after every restart.
    """
    if not elapsed_seconds <= left_seconds <= SOON_SECONDS:
        return None
    return (
        f"the time limit of {elapsed_seconds + left_seconds:.0f} s is too short for its warning, which came "
        f"{elapsed_seconds:.0f} s after the start: submit the job with a longer --time, or with a later warning, such as "
        "--signal=B:USR1@30"
    )


def count_fruitless(history: Sequence[Entry], *, job: str, step: int) -> int:
    """Number of starts of this job since the checkpoint of `step`, the newest, was saved; excused ones do not count."""
    excused = {(e.restart, e.launch) for e in history if isinstance(e, JobEnd) and is_excused(e, job=job)}
    starts = [entry for entry in history if isinstance(entry, JobStart) and entry.job == job]
    return sum(start.step == step and (start.restart, start.launch) not in excused for start in starts)


def is_excused(end: JobEnd, *, job: str) -> bool:
    """Whether this end was not the run's fault."""
    return end.job == job and end.cause in EXCUSED


def find_end(history: Sequence[Entry], *, job: str, restart: int, launch: int = 0) -> JobEnd | None:
    """The first entry about the end of a start; later ones are its consequences. None without an entry."""
    wanted = (job, restart, launch)
    return next((e for e in history if isinstance(e, JobEnd) and (e.job, e.restart, e.launch) == wanted), None)


def is_followed(history: Sequence[Entry], *, job: str, restart: int) -> bool:
    """Whether a later start of the job exists, so that this one is on a node that Slurm has given up."""
    return any(isinstance(e, JobStart) and e.job == job and e.restart > restart for e in history)


def find_start(history: Sequence[Entry], *, job: str, restart: int, launch: int = 0) -> JobStart | None:
    """The entry of a start; None without one."""
    wanted = (job, restart, launch)
    return next((e for e in history if isinstance(e, JobStart) and (e.job, e.restart, e.launch) == wanted), None)


def describe_start(
    history: Sequence[Entry], *, job: str, restart: int, launch: int = 0, num_nodes: int = 0, name: str | None = None
) -> str:
    """Why the ranks of a job start now and how that is known.

    `num_nodes` is told if the batch script starts them again itself (`launch`). `name` is the job's name for Slurm's commands, if
    that differs from its id.
    """
    called = f"job {name or job}"
    if launch:
        why = _describe_end(find_end(history, job=job, restart=restart, launch=launch - 1))
        return f"{called}, started again at once on {count_nodes(num_nodes)} ({why})"
    if restart == 0:
        return f"{called}, submitted to resume the run" if history else f"{called}, first start"
    before = [e.launch for e in history if isinstance(e, JobStart) and (e.job, e.restart) == (job, restart - 1)]
    why = _describe_end(find_end(history, job=job, restart=restart - 1, launch=max(before, default=0)))
    return f"{called}, restart {restart} ({why})"


def count_nodes(number: int) -> str:
    """`1 node` or `2 nodes`."""
    return f"{number} node{'' if number == 1 else 's'}"


def _describe_end(end: JobEnd | None) -> str:
    if end is None:
        return "its batch script recorded no end: its node was lost, or it was killed at once"
    if end.cause == "its own end":
        return f"it ended on its own: {end.source}"
    return f"after {end.cause}, according to {end.source}"


def read_cause(queue: str, *, restart: int, down_nodes: str) -> tuple[Cause, str]:
    """Why Slurm sent SIGTERM to a batch script, and how that is known.

    Args:
        queue: squeue's reason, preemption time and restart count of the job while it is ending.
        restart: the number of this start; squeue's count is larger once the job is to be started again.
        down_nodes: the nodes of the job that sinfo lists as down.
    """
    fields = queue.split()
    if len(fields) != 3 or not fields[2].isdecimal():
        return "unknown", f"squeue (output {queue.strip()!r})"
    reason, preempted, restarts = fields
    if reason == "TimeLimit":
        return "time limit", "squeue (reason)"
    if int(restarts) <= restart:
        return "cancelled", "squeue (restart count)"
    if preempted != "N/A":
        return "preemption", "squeue (preemption time)"
    if down_nodes.strip():
        return "node failure", f"sinfo (down: {','.join(dict.fromkeys(down_nodes.split()))})"
    return "requeue by hand", "squeue (restart count)"


def read_history(run_dir: Path) -> list[Entry]:
    """All entries of a run's history. Lines that are torn or from another version are skipped."""
    try:
        lines = read_bytes(RunFolder(run_dir).slurm_history).splitlines()
    except OSError:
        return []
    return [entry for line in lines if (entry := _read_entry(line)) is not None]


def append_entry(run_dir: Path, entry: Entry) -> None:
    """Append an entry to a run's history; it is on disk when this returns."""
    line = json.dumps(asdict(entry), ensure_ascii=False)
    append_line(RunFolder(run_dir).slurm_history, line, durable=True)


def _read_entry(line: bytes) -> Entry | None:
    try:
        return _ENTRY.validate_json(line, strict=True)
    except ValidationError:
        return None
