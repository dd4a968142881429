"""What slurm/train.sbatch asks on the host of the batch script: may the job start, who ended it, is it started again?

    python -m dstrain.slurm.job start -- --config …         checks the recipe and its evaluation job, prints why the job starts
    python -m dstrain.slurm.job told -- --config …          Slurm ends the job (SIGTERM): by whom, while Slurm still knows
    python -m dstrain.slurm.job end --code 85 -- --config … decides, and asks Slurm for a requeue; gives the job's exit code

After `--` stands what launch/train.py is given. Imports no torch, and is never run inside a container, where Slurm's commands
are missing.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dstrain.attempt.failure import newest_report
from dstrain.checkpoint.store import newest_step
from dstrain.cluster.exit_codes import EXIT_FAILED, EXIT_PREEMPTED, EXIT_USAGE
from dstrain.cluster.walltime import ALLOCATION_ENDS, read_allocation_end
from dstrain.config.arguments import parse_arguments, split_arguments
from dstrain.config.load import load_config
from dstrain.errors import UserError
from dstrain.run_folder.layout import make_run_folder
from dstrain.run_folder.outcome import read_outcome
from dstrain.slurm.commands import Run, run_command
from dstrain.slurm.evaluation_jobs import describe_refusal, plan_submission
from dstrain.slurm.requeue import (
    BY_SLURM,
    MAX_FRUITLESS,
    Cause,
    Entry,
    JobEnd,
    JobStart,
    append_entry,
    count_fruitless,
    decide,
    describe_early_warning,
    describe_fruitless,
    describe_start,
    find_end,
    find_start,
    is_followed,
    read_cause,
    read_history,
)

MAX_SOURCE = 160
"""Letters of a reason: it goes onto the card."""
FOR_NOW = ("contact", "timed out", "not available", "busy")
"""Words of sbatch's which may only mean that Slurm's controller, or nodes, are away for a while."""


@dataclass(frozen=True)
class Job:
    """The start of a Slurm job that asks, and the run folder it trains into."""

    id: str
    """As the history has it: SLURM_JOB_ID, of an array a number for each task."""
    name: str
    """As Slurm's commands are given it. In a job array one task's job id is that of the array, and would name all of its
    tasks: that one is called `12_3`."""
    restart: int
    nodes: str
    run_dir: Path
    evaluation_job: Sequence[str] | None
    """The recipe's options for small jobs, if evaluations are left to these."""
    max_fruitless: int
    warned_after: float | None
    """Seconds from the start of the batch script to Slurm's warning; None if there was none."""
    run: Run
    environment: Mapping[str, str]

    def history(self) -> list[Entry]:
        """What was written down so far."""
        return read_history(self.run_dir)

    def num_fruitless(self, history: Sequence[Entry]) -> int:
        """Starts of this job since the newest checkpoint was saved."""
        return count_fruitless(history, job=self.id, step=newest_step(self.run_dir))


def main(
    argv: Sequence[str] | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    run: Run | None = None,
) -> int:
    """Answer one question of the batch script; gives its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    own, training = split_arguments(arguments)
    options = _parse(own)
    try:
        job = _this_job(training, environment=environment, options=options, run=run or run_command)
        if options.question == "start":
            return start(job)
        if options.question == "told":
            return told(job)
        return end(job, code=options.code)
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE


def start(job: Job) -> int:
    """Write down that the job starts, and print why; refuse one whose restarts lead nowhere, whoever ordered them."""
    history = job.history()
    if (num_fruitless := job.num_fruitless(history)) >= job.max_fruitless:
        print(describe_fruitless(num_fruitless), file=sys.stderr)
        return EXIT_FAILED
    _try_evaluation_job(job)
    cause = describe_start(history, job=job.id, restart=job.restart, name=job.name)
    entry = JobStart(
        job.id, job.restart, newest_step(job.run_dir), cause, last_report=newest_report(job.run_dir)[0], time=_now()
    )
    append_entry(job.run_dir, entry)
    print(cause)
    return 0


def told(job: Job) -> int:
    """Write down who ended the job, while Slurm still knows; at its time limit ask for a requeue at once.

    There is no later: the tasks may need all the time until Slurm kills the batch script too.
    """
    history = job.history()
    if _is_over(job, history=history) or find_end(history, job=job.id, restart=job.restart) is not None:
        return 0
    cause, source = _ask_slurm(job)
    again = cause == "time limit" and job.num_fruitless(history) < job.max_fruitless
    append_entry(job.run_dir, JobEnd(job.id, job.restart, cause, source, again, time=_now()))
    _say_if_warned_early(job, begun=find_start(history, job=job.id, restart=job.restart))
    _say(f"Slurm ends this job: {cause}; says {source}")
    if again:
        _requeue(job)
    return 0


def end(job: Job, *, code: int) -> int:
    """Decide what follows after srun has ended, and ask Slurm for it."""
    history = job.history()
    if _is_over(job, history=history):
        return code
    before = find_end(history, job=job.id, restart=job.restart)
    if before is None and code != 0:
        before = _find_echo(job, code=code)
    if before is not None:
        comes_again = before.again or before.cause in BY_SLURM
        _say(f"{before.cause}: {'Slurm starts the job again' if comes_again else 'not requeued'}")
        return code
    begun = find_start(history, job=job.id, restart=job.restart)
    warned = job.warned_after is not None
    decision = decide(
        code=code,
        failure=_find_failure(job, begun=begun),
        num_fruitless=job.num_fruitless(history),
        max_fruitless=job.max_fruitless,
        warned=warned,
    )
    cause, source = _own_cause(job, warned=warned)
    append_entry(job.run_dir, JobEnd(job.id, job.restart, cause, source, decision.requeue, code=code, time=_now()))
    _say_if_warned_early(job, begun=begun)
    _say(decision.reason)
    if decision.requeue:
        _requeue(job)
    return decision.exit_code


def _try_evaluation_job(job: Job) -> None:
    """Ask whether Slurm would take the small jobs of this run, before time is spent on training.

    Raises:
        UserError: it never would. On a restart, and where it may only be for now, that is said and nothing more.
    """
    if job.evaluation_job is None:
        return
    command = plan_submission(job.run_dir, options=job.evaluation_job, environment=job.environment, is_test=True)
    code, printed = job.run(command)
    if code == 0:
        return
    refusal = describe_refusal(job.run_dir, options=job.evaluation_job, printed=printed)
    if job.restart == 0 and not any(words in printed for words in FOR_NOW):
        raise UserError(refusal)
    _say(refusal)


def _say_if_warned_early(job: Job, *, begun: JobStart | None) -> None:
    ends = read_allocation_end(job.environment)
    if job.warned_after is None or ends is None or begun is None or not begun.time:
        return
    # by the script's own clock: what comes after the warning may take long
    left = ends - datetime.fromisoformat(begun.time).timestamp() - job.warned_after
    if words := describe_early_warning(elapsed_seconds=job.warned_after, left_seconds=left):
        _say(words)


def _is_over(job: Job, *, history: Sequence[Entry]) -> bool:
    """Whether a later start of this job runs: its node was given up, and what it asks for now would befall that one."""
    if is_followed(history, job=job.id, restart=job.restart):
        _say("this job was started again on other nodes; nothing more is asked for")
        return True
    return False


def _ask_slurm(job: Job) -> tuple[Cause, str]:
    _, queue = job.run(
        ["squeue", "--noheader", "--jobs", job.name, "--Format", "Reason:40,PreemptTime:40,RestartCnt:40"]
    )
    _, down = job.run(["sinfo", "--noheader", "--Node", "--nodes", job.nodes, "--states", "down", "--format", "%N"])
    return read_cause(queue, restart=job.restart, down_nodes=down)


def _find_echo(job: Job, *, code: int) -> JobEnd | None:
    """The end of a start that Slurm is starting again already, where srun ended before Slurm's word came."""
    cause, source = _ask_slurm(job)
    if cause not in BY_SLURM:
        return None
    entry = JobEnd(job.id, job.restart, cause, source, again=False, code=code, time=_now())
    append_entry(job.run_dir, entry)
    return entry


def _find_failure(job: Job, *, begun: JobStart | None) -> str | None:
    """What a rank of this start reported before it ended by an error of its own."""
    reported, last_line = newest_report(job.run_dir)
    if begun is None or reported <= begun.last_report:
        return None
    outcome = read_outcome(job.run_dir)
    return outcome.message if outcome is not None and outcome.outcome == "failed" else last_line


def _own_cause(job: Job, *, warned: bool) -> tuple[Cause, str]:
    if warned:
        return "time limit", "Slurm, by the signal before it"
    outcome = read_outcome(job.run_dir)
    if outcome is None or not outcome.message:
        return "its own end", "srun gave no reason"
    if outcome.message == ALLOCATION_ENDS:
        return "time limit", "the run, which saw the end of its allocation"
    return "its own end", outcome.message.split(";")[0][:MAX_SOURCE]


def _requeue(job: Job) -> None:
    code, printed = job.run(["scontrol", "requeue", job.name])
    if code != 0:
        _say(
            f"scontrol requeue {job.name} failed ({printed.strip()}): submit the job again, it goes on from where it was"
        )


def _this_job(training: Sequence[str], *, environment: Mapping[str, str], options: argparse.Namespace, run: Run) -> Job:
    given = parse_arguments(training)
    config = load_config(given.config, overrides=given.overrides, check_files=options.question == "start")
    job, restart = environment.get("SLURM_JOB_ID", ""), environment.get("SLURM_RESTART_COUNT", "0")
    if not job.isdecimal() or not restart.isdecimal():
        raise UserError(
            f"environment: SLURM_JOB_ID and SLURM_RESTART_COUNT must be whole numbers, found {job!r} and {restart!r}; "
            "submit slurm/train.sbatch with sbatch"
        )
    run_dir = make_run_folder(config).path
    nodes = environment.get("SLURM_JOB_NODELIST", "")
    name = _name_of(job, environment=environment)
    return Job(
        job,
        name,
        int(restart),
        nodes,
        run_dir,
        evaluation_job=config.machine.evaluation_job,
        max_fruitless=options.max_fruitless,
        warned_after=options.warned,
        run=run,
        environment=environment,
    )


def _name_of(job: str, *, environment: Mapping[str, str]) -> str:
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    # not whenever there are such variables: a job inherits them if it was submitted inside a task of an array
    return f"{array}_{task}" if array == job and task else job


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dstrain.slurm.job", description="Asked by slurm/train.sbatch.")
    parser.add_argument("question", choices=["start", "told", "end"])
    parser.add_argument("--code", type=int, default=EXIT_PREEMPTED, help="srun's exit code")
    parser.add_argument("--warned", type=float, metavar="SECONDS", help="when Slurm warned of the time limit")
    parser.add_argument(
        "--max-fruitless", type=int, default=MAX_FRUITLESS, help="starts in a row that save nothing new"
    )
    return parser.parse_args(arguments)


def _say(message: str) -> None:
    print(f"dstrain: {message}", file=sys.stderr, flush=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main())
