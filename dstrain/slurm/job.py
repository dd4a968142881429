"""The questions of slurm/train.sbatch on its host: may the job start, why does Slurm end it, is it requeued?

    python -m dstrain.slurm.job start -- --config …         checks the recipe and its evaluation job; prints why the job starts
    python -m dstrain.slurm.job signalled -- --config …     after SIGTERM: records why Slurm ends the job, while Slurm still knows
    python -m dstrain.slurm.job end --code 85 -- --config … decides about a requeue and requests it; exits with the job's code

The arguments of launch/train.py follow `--`. Imports no torch. Never runs inside a container, which lacks Slurm's commands.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dstrain.attempt.failure import newest_report
from dstrain.checkpoint.store import newest_step
from dstrain.cluster.console import say
from dstrain.cluster.exit_codes import EXIT_FAILED, EXIT_PREEMPTED, EXIT_USAGE
from dstrain.cluster.walltime import ALLOCATION_ENDS, read_allocation_end
from dstrain.config.arguments import parse_arguments, split_arguments
from dstrain.config.load import load_config
from dstrain.errors import UserError
from dstrain.run_folder.outcome import read_outcome
from dstrain.run_folder.ownership import make_run_folder
from dstrain.slurm.commands import Run, print_message, run_command, timestamp
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
"""Largest length of a reason in characters, because it is shown on the card."""
TEMPORARY = ("contact", "timed out", "not available", "busy")
"""Parts of sbatch's messages that may only mean that the controller or nodes are unavailable for a while."""


@dataclass(frozen=True)
class Job:
    """This start of a Slurm job and the run folder that it trains into."""

    id: str
    """SLURM_JOB_ID, as in the history; every task of a job array has its own."""
    name: str
    """The name for Slurm's commands: the id, or `12_3` for the task of a job array whose id is that of the whole array."""
    restart: int
    nodes: str
    run_dir: Path
    evaluation_job: Sequence[str] | None
    """The recipe's sbatch options for evaluation jobs; None if the run evaluates itself."""
    max_fruitless: int
    warned_after: float | None
    """Seconds from the start of the batch script to Slurm's warning; None without a warning."""
    run: Run
    environment: Mapping[str, str]

    def history(self) -> list[Entry]:
        """The entries of all starts of this run so far."""
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
    """Answer one question of the batch script; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    own, training = split_arguments(arguments)
    options = _parse(own)
    try:
        job = _this_job(training, environment=environment, options=options, run=run or run_command)
        if options.question == "start":
            return start(job)
        if options.question == "signalled":
            return signalled(job)
        return end(job, code=options.code)
    except (UserError, OSError) as error:
        say(error, err=True)
        return EXIT_USAGE


def start(job: Job) -> int:
    """Record the start and print its reason; refuse a job whose starts make no progress, even if Slurm itself requeues it."""
    history = job.history()
    if (num_fruitless := job.num_fruitless(history)) >= job.max_fruitless:
        say(describe_fruitless(num_fruitless), err=True)
        return EXIT_FAILED
    _try_evaluation_job(job)
    cause = describe_start(history, job=job.id, restart=job.restart, name=job.name)
    entry = JobStart(
        job.id,
        job.restart,
        newest_step(job.run_dir),
        cause,
        last_report=newest_report(job.run_dir)[0],
        time=timestamp(),
    )
    append_entry(job.run_dir, entry)
    say(cause)
    return 0


def signalled(job: Job) -> int:
    """Record why Slurm ends the job, while Slurm still knows; at the time limit request a requeue at once.

    Later may be too late: the tasks may take until Slurm kills the batch script as well.
    """
    history = job.history()
    if _is_over(job, history=history) or find_end(history, job=job.id, restart=job.restart) is not None:
        return 0
    cause, source = _ask_slurm(job)
    again = cause == "time limit" and job.num_fruitless(history) < job.max_fruitless
    append_entry(job.run_dir, JobEnd(job.id, job.restart, cause, source, again, time=timestamp()))
    _report_early_warning(job, begun=find_start(history, job=job.id, restart=job.restart))
    print_message(f"Slurm ends this job: {cause}, according to {source}")
    if again:
        _requeue(job)
    return 0


def end(job: Job, *, code: int) -> int:
    """Decide about a requeue after srun has ended, and request it; returns the exit code of the job."""
    history = job.history()
    if _is_over(job, history=history):
        return code
    before = find_end(history, job=job.id, restart=job.restart)
    if before is None and code != 0:
        before = _find_echo(job, code=code)
    if before is not None:
        comes_again = before.again or before.cause in BY_SLURM
        print_message(f"{before.cause}: {'Slurm starts the job again' if comes_again else 'not requeued'}")
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
    append_entry(job.run_dir, JobEnd(job.id, job.restart, cause, source, decision.requeue, code=code, time=timestamp()))
    _report_early_warning(job, begun=begun)
    print_message(decision.reason)
    if decision.requeue:
        _requeue(job)
    return decision.exit_code


def _try_evaluation_job(job: Job) -> None:
    """Check that Slurm accepts the evaluation jobs of this run before time is spent on training.

    Raises:
        UserError: Slurm refuses them. On a restart, and if the cause may be temporary, the refusal is only printed.
    """
    if job.evaluation_job is None:
        return
    command = plan_submission(job.run_dir, options=job.evaluation_job, environment=job.environment, is_test=True)
    code, printed = job.run(command)
    if code == 0:
        return
    refusal = describe_refusal(job.run_dir, options=job.evaluation_job, printed=printed)
    if job.restart == 0 and not any(part in printed for part in TEMPORARY):
        raise UserError(refusal)
    print_message(refusal)


def _report_early_warning(job: Job, *, begun: JobStart | None) -> None:
    ends = read_allocation_end(job.environment)
    if job.warned_after is None or ends is None or begun is None or not begun.time:
        return
    # by the time of the warning: the tasks may have taken long since then
    left = ends - datetime.fromisoformat(begun.time).timestamp() - job.warned_after
    if message := describe_early_warning(elapsed_seconds=job.warned_after, left_seconds=left):
        print_message(message)


def _is_over(job: Job, *, history: Sequence[Entry]) -> bool:
    """Whether Slurm has given up this node and started the job elsewhere; a request from here would affect that start."""
    if is_followed(history, job=job.id, restart=job.restart):
        print_message("this job was started again on other nodes; this start requests nothing any more")
        return True
    return False


def _ask_slurm(job: Job) -> tuple[Cause, str]:
    _, queue = job.run(
        ["squeue", "--noheader", "--jobs", job.name, "--Format", "Reason:40,PreemptTime:40,RestartCnt:40"]
    )
    _, down = job.run(["sinfo", "--noheader", "--Node", "--nodes", job.nodes, "--states", "down", "--format", "%N"])
    return read_cause(queue, restart=job.restart, down_nodes=down)


def _find_echo(job: Job, *, code: int) -> JobEnd | None:
    """Record the end of a job that Slurm is already starting again, if srun ended before SIGTERM came; None for any other end."""
    cause, source = _ask_slurm(job)
    if cause not in BY_SLURM:
        return None
    entry = JobEnd(job.id, job.restart, cause, source, again=False, code=code, time=timestamp())
    append_entry(job.run_dir, entry)
    return entry


def _find_failure(job: Job, *, begun: JobStart | None) -> str | None:
    """The error that a rank of this start reported; None without one."""
    reported, last_line = newest_report(job.run_dir)
    if begun is None or reported <= begun.last_report:
        return None
    outcome = read_outcome(job.run_dir)
    return outcome.message if outcome is not None and outcome.outcome == "failed" else last_line


def _own_cause(job: Job, *, warned: bool) -> tuple[Cause, str]:
    if warned:
        return "time limit", "Slurm's warning signal"
    outcome = read_outcome(job.run_dir)
    if outcome is None or not outcome.message:
        return "its own end", "srun reported no reason"
    if outcome.message == ALLOCATION_ENDS:
        return "time limit", "the run itself (end of its allocation)"
    return "its own end", outcome.message.split(";")[0][:MAX_SOURCE]


def _requeue(job: Job) -> None:
    code, printed = job.run(["scontrol", "requeue", job.name])
    if code != 0:
        print_message(
            f"scontrol requeue {job.name} failed ({printed.strip()}): submit the job again; it resumes from its newest "
            "checkpoint"
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
    # a job that was submitted inside a task of another array inherits that array's variables
    return f"{array}_{task}" if array == job and task else job


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dstrain.slurm.job", description="Called by slurm/train.sbatch.")
    parser.add_argument("question", choices=["start", "signalled", "end"])
    parser.add_argument("--code", type=int, default=EXIT_PREEMPTED, help="srun's exit code")
    parser.add_argument("--warned", type=float, metavar="SECONDS", help="seconds from the start to Slurm's warning")
    parser.add_argument(
        "--max-fruitless", type=int, default=MAX_FRUITLESS, help="starts in a row that save nothing new"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
