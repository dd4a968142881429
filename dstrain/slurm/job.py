"""The questions of slurm/train.sbatch on its host: may the job start, why does Slurm end it, is it requeued?

    python -m dstrain.slurm.job start -- --config …         checks the recipe and its evaluation job; prints why the job starts
    python -m dstrain.slurm.job signalled -- --config …     after SIGTERM: records why Slurm ends the job, while Slurm still knows
    python -m dstrain.slurm.job end --code 85 -- --config … decides about a requeue and requests it; exits with the job's code.
                                                           If nodes were lost and enough are left, prints these instead: the
                                                           ranks start again there

The arguments of launch/train.py follow `--`. Imports no torch. Never runs inside a container, which lacks Slurm's commands.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dstrain.attempt.failure import broken_host, newest_report
from dstrain.checkpoint.store import newest_step
from dstrain.cluster.console import say
from dstrain.cluster.environment import read_launch
from dstrain.cluster.exit_codes import EXIT_FAILED, EXIT_PREEMPTED, EXIT_USAGE
from dstrain.cluster.walltime import ALLOCATION_ENDS, read_allocation_end
from dstrain.config.arguments import parse_arguments, split_arguments
from dstrain.config.load import load_config
from dstrain.errors import UserError
from dstrain.run_folder.claims import claim_numbers
from dstrain.run_folder.outcome import read_last_word, summarize
from dstrain.run_folder.ownership import make_run_folder
from dstrain.slurm.commands import Run, print_message, run_command, timestamp
from dstrain.slurm.evaluation_jobs import describe_refusal, plan_submission
from dstrain.slurm.nodes import Allocation, Loss, find_loss, list_nodes, name_of, short_name
from dstrain.slurm.requeue import (
    BY_SLURM,
    MAX_FRUITLESS,
    MAX_FRUITLESS_HERE,
    Cause,
    Entry,
    JobEnd,
    JobStart,
    append_entry,
    count_fruitless,
    count_nodes,
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
class Job(Allocation):
    """This start of a Slurm job and the run folder that it trains into."""

    restart: int
    launch: int
    nodes: str
    run_dir: Path
    evaluation_job: Sequence[str] | None
    """The recipe's sbatch options for evaluation jobs; None if the run evaluates itself."""
    max_fruitless: int
    warned_after: float | None
    """Seconds from the start of the batch script to Slurm's warning; None without a warning."""

    def history(self) -> list[Entry]:
        """The entries of all starts of this run so far."""
        return read_history(self.run_dir)

    def find_start(self, history: Sequence[Entry]) -> JobStart | None:
        """The entry of this start."""
        return find_start(history, job=self.id, restart=self.restart, launch=self.launch)

    def find_end(self, history: Sequence[Entry]) -> JobEnd | None:
        """The first entry about the end of this start."""
        return find_end(history, job=self.id, restart=self.restart, launch=self.launch)

    def ended(self, cause: Cause, source: str, *, again: bool, code: int | None = None) -> JobEnd:
        """A new entry about the end of this start."""
        return JobEnd(self.id, self.restart, cause, source, again, code=code, time=timestamp(), launch=self.launch)

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
            return start(job, nodes=options.nodes)
        if options.question == "signalled":
            return signalled(job)
        return end(job, code=options.code)
    except (UserError, OSError) as error:
        say(error, err=True)
        return EXIT_USAGE


def start(job: Job, *, nodes: str) -> int:
    """Record the start and print its reason; refuse a job whose starts make no progress, even if Slurm itself requeues it.

    `nodes` are those of its ranks, separated by commas.
    """
    history = job.history()
    if (num_fruitless := job.num_fruitless(history)) >= job.max_fruitless:
        say(describe_fruitless(num_fruitless), err=True)
        return EXIT_FAILED
    _try_evaluation_job(job)
    num_nodes = len(nodes.split(","))
    cause = describe_start(
        history, job=job.id, restart=job.restart, launch=job.launch, num_nodes=num_nodes, name=job.name
    )
    entry = JobStart(
        job.id,
        job.restart,
        newest_step(job.run_dir),
        cause,
        last_report=newest_report(job.run_dir)[0],
        last_attempt=max(claim_numbers(job.run_dir), default=0),
        time=timestamp(),
        launch=job.launch,
        nodes=nodes,
    )
    append_entry(job.run_dir, entry)
    say(cause)
    return 0


def signalled(job: Job) -> int:
    """Record why Slurm ends the job, while Slurm still knows; at the time limit request a requeue at once.

    Later may be too late: the tasks may take until Slurm kills the batch script as well.
    """
    history = job.history()
    if _is_over(job, history=history) or job.find_end(history) is not None:
        return 0
    cause, source = _ask_slurm(job)
    again = cause == "time limit" and job.num_fruitless(history) < job.max_fruitless
    append_entry(job.run_dir, job.ended(cause, source, again=again))
    _report_early_warning(job, history=history)
    print_message(f"Slurm ends this job: {cause}, according to {source}")
    if again:
        _requeue(job)
    return 0


def end(job: Job, *, code: int) -> int:
    """Decide what follows after srun has ended, and request a requeue if that is it; returns the exit code of the job.

    If the ranks start again at once instead, prints their nodes.
    """
    history = job.history()
    if _is_over(job, history=history):
        return code
    before = job.find_end(history)
    if before is None and code != 0:
        before = _find_echo(job, code=code)
    if before is not None:
        comes_again = before.again or before.cause in BY_SLURM
        print_message(f"{before.cause}: {'Slurm starts the job again' if comes_again else 'not requeued'}")
        return code
    return _end_on_its_own(job, history=history, code=code)


def _end_on_its_own(job: Job, *, history: Sequence[Entry], code: int) -> int:
    warned = job.warned_after is not None
    failure = _find_failure(job, begun=job.find_start(history)) if code != 0 else None
    cause, source = _own_cause(job, warned=warned, failure=failure)
    loss = _find_loss(job, history=history, source=source) if code != 0 and cause == "its own end" else None
    # what ranks report and return after a node was lost only follows from that
    is_node_failure = loss is not None and bool(loss.silent)
    num_fruitless = job.num_fruitless(history)
    decision = decide(
        code=EXIT_PREEMPTED if is_node_failure else code,
        failure=None if is_node_failure else failure,
        num_fruitless=num_fruitless,
        max_fruitless=job.max_fruitless,
        warned=warned,
    )
    if loss is not None and loss.silent:
        cause, source = "node failure", _source_of(loss, job=job)
    append_entry(job.run_dir, job.ended(cause, source, again=decision.requeue, code=code))
    _report_early_warning(job, history=history)
    if loss is not None and decision.requeue and _start_here(loss, num_fruitless=num_fruitless):
        say(",".join(loss.left))
        return decision.exit_code
    print_message(decision.reason)
    if decision.requeue:
        _requeue(job)
    return decision.exit_code


def _find_loss(job: Job, *, history: Sequence[Entry], source: str) -> Loss | None:
    """The nodes that the ranks of this start have lost, and what is left. `source` says why the ranks ended."""
    begun, first = job.find_start(history), find_start(history, job=job.id, restart=job.restart)
    if begun is None or first is None or not begun.nodes or len(list_nodes(job.nodes, run=job.run)) < 2:
        return None
    ends = [e.source for e in history if isinstance(e, JobEnd) and (e.job, e.restart) == (job.id, job.restart)]
    broken = {short_name(host) for each in [*ends, source] if (host := broken_host(each)) is not None}
    return find_loss(job, used=begun.nodes.split(","), wanted=len(first.nodes.split(",")), broken=broken)


def _source_of(loss: Loss, *, job: Job) -> str:
    """How it is known that nodes are lost."""
    silent = ",".join(loss.silent)
    _, down = job.run(["sinfo", "--noheader", "--Node", "--nodes", silent, "--states", "down", "--format", "%N"])
    return f"sinfo (down: {silent})" if set(loss.silent) <= set(down.split()) else f"srun (no answer: {silent})"


def _start_here(loss: Loss, *, num_fruitless: int) -> bool:
    """Whether the ranks start again at once on the nodes that are left; prints why, or why not."""
    lost = f"lost {', '.join((*loss.silent, *loss.broken))}"
    left = f"{count_nodes(len(loss.left))} left"
    if len(loss.left) < loss.needed:
        print_message(f"{lost}: {left}, but the job needs {loss.needed}")
        return False
    if num_fruitless >= MAX_FRUITLESS_HERE:
        print_message(f"{lost}: {left}, but {num_fruitless} starts in a row saved nothing new")
        return False
    print_message(f"{lost}: started again at once on {count_nodes(len(loss.left))} ({', '.join(loss.left)})")
    return True


def _try_evaluation_job(job: Job) -> None:
    """Check that Slurm accepts the evaluation jobs of this run before time is spent on training.

    Raises:
        UserError: Slurm refuses them. On any later start, and if the cause may be temporary, the refusal is only printed.
    """
    if job.evaluation_job is None:
        return
    command = plan_submission(job.run_dir, options=job.evaluation_job, environment=job.environment, is_test=True)
    code, printed = job.run(command)
    if code == 0:
        return
    refusal = describe_refusal(job.run_dir, options=job.evaluation_job, printed=printed)
    if job.restart == job.launch == 0 and not any(part in printed for part in TEMPORARY):
        raise UserError(refusal)
    print_message(refusal)


def _report_early_warning(job: Job, *, history: Sequence[Entry]) -> None:
    ends, begun = read_allocation_end(job.environment), find_start(history, job=job.id, restart=job.restart)
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
    entry = job.ended(cause, source, again=False, code=code)
    append_entry(job.run_dir, entry)
    return entry


def _find_failure(job: Job, *, begun: JobStart | None) -> str | None:
    """The error that a rank of this start reported; None without one."""
    reported, last_line = newest_report(job.run_dir)
    if begun is None or reported <= begun.last_report:
        return None
    end = read_last_word(job.run_dir)
    if end is None or end.outcome not in ("failed", "refused") or 0 < end.attempt <= begun.last_attempt:
        return last_line  # it ended before it became an attempt: what the last one said is older
    return end.message


def _own_cause(job: Job, *, warned: bool, failure: str | None) -> tuple[Cause, str]:
    if warned:
        return "time limit", "Slurm's warning signal"
    end = read_last_word(job.run_dir)
    message = failure if failure is not None else end.message if end is not None else ""
    if not message:
        return "its own end", "srun reported no reason"
    if message == ALLOCATION_ENDS:
        return "time limit", "the run itself (end of its allocation)"
    return "its own end", summarize(message).split(";")[0][:MAX_SOURCE]


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
    name = name_of(job, environment=environment)
    return Job(
        job,
        name,
        run,
        environment,
        int(restart),
        read_launch(environment),
        nodes,
        run_dir,
        evaluation_job=config.machine.evaluation_job,
        max_fruitless=options.max_fruitless,
        warned_after=options.warned,
    )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dstrain.slurm.job", description="Called by slurm/train.sbatch.")
    parser.add_argument("question", choices=["start", "signalled", "end"])
    parser.add_argument("--code", type=int, default=EXIT_PREEMPTED, help="srun's exit code")
    parser.add_argument("--nodes", default="", help="the nodes of the ranks, separated by commas")
    parser.add_argument("--warned", type=float, metavar="SECONDS", help="seconds from the start to Slurm's warning")
    parser.add_argument(
        "--max-fruitless", type=int, default=MAX_FRUITLESS, help="starts in a row that save nothing new"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
