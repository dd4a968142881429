"""Evaluations that a run leaves to other Slurm jobs: submits these jobs and remembers them. Imports no torch.

    python -m dstrain.slurm.evaluation_jobs watch -- --config …     beside a run: submits a job whenever one is needed
    python -m dstrain.slurm.evaluation_jobs submit -- --config …    submits at most one job, after the run

Called by slurm/train.sbatch, with the arguments of launch/train.py after `--`. Returns at once if `machine.evaluation_job` is
null, because the run then evaluates itself. Every submitted job is a line of `<run>/evaluation_jobs.jsonl`.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dstrain.checkpoint.pending import list_pending
from dstrain.config.arguments import parse_arguments, shell_command, split_arguments
from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.run_folder.atomic import append_line
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import RunFolderError, read_bytes
from dstrain.slurm.commands import Run, print_message, run_command, timestamp, without_slurm

SCRIPT = "slurm/evaluate.sbatch"
MAX_JOBS = 3
"""Jobs submitted for an evaluation that produced no scores. After these the evaluation is left to the user."""
WATCH_SECONDS = 15.0
"""Pause of `watch` between two looks at the run folder."""

Evaluation = tuple[int, int]
"""Step and lease of the checkpoint to be scored."""


def main(
    argv: Sequence[str] | None = None, *, environment: Mapping[str, str] = os.environ, run: Run = run_command
) -> int:
    """Submit jobs for pending evaluations: once, or until this process is killed. Returns the exit code."""
    own, training = split_arguments(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="python -m dstrain.slurm.evaluation_jobs", description="Called by slurm/train.sbatch."
    )
    parser.add_argument("command", choices=["watch", "submit"])
    command = parser.parse_args(own).command
    given = parse_arguments(training)
    config = load_config(given.config, overrides=given.overrides)
    if config.machine.evaluation_job is None:
        return 0
    say = _say_once()
    while command == "watch":
        submit_pending(config, environment=environment, run=run, say=say)
        time.sleep(WATCH_SECONDS)
    submit_pending(config, environment=environment, run=run, say=say, is_last=True)
    return 0


def submit_pending(
    config: RunConfig,
    *,
    environment: Mapping[str, str],
    run: Run,
    say: Callable[[str], None],
    is_last: bool = False,
) -> str | None:
    """Submit a job for the pending evaluations unless one is in the queue; returns its id, None without a submission.

    A job scores everything that is pending until it ends. The queued job may already have looked for the last time, so the
    final evaluation (`is_last`) gets a job of its own, which starts after the queued one.
    """
    run_dir = Path(config.run_dir)
    try:
        pending = list_pending(run_dir)
    except (RunFolderError, OSError):  # the run may not have written anything yet
        return None
    jobs = read_jobs(run_dir)
    wanted = [each for each in pending if len(jobs.get((each.step, each.lease), ())) < MAX_JOBS]
    if not wanted:
        return None
    code, queue = run(["squeue", "--noheader", "--name", job_name(run_dir), "--format", "%i"])
    if not is_last and (code != 0 or queue.strip()):
        return None
    options = config.machine.evaluation_job
    assert options is not None
    code, printed = run(plan_submission(run_dir, options=options, environment=environment))
    if code != 0:
        say(describe_refusal(run_dir, options=options, printed=printed))
        return None
    job, steps = printed.strip(), ", ".join(str(each.step) for each in wanted)
    note_job(run_dir, job=job, evaluations=[(each.step, each.lease) for each in wanted])
    say(f"job {job} scores step {steps}")
    return job


def job_name(run_dir: Path) -> str:
    """The name of a run's evaluation jobs, by which squeue finds them."""
    return f"dstrain-evaluate-{hashlib.sha256(str(run_dir.absolute()).encode()).hexdigest()[:12]}"


def plan_submission(
    run_dir: Path, *, options: Sequence[str], environment: Mapping[str, str], is_test: bool = False
) -> list[str]:
    """The command that submits an evaluation job with the recipe's `options`, or that only tests whether Slurm accepts it."""
    fixed = [f"--job-name={job_name(run_dir)}", "--dependency=singleton"]
    return [
        *without_slurm(environment),  # else the evaluation job would take the size of this one
        "sbatch",
        "--test-only" if is_test else "--parsable",
        *options,
        *fixed,
        SCRIPT,
        str(run_dir),
        "--pending",
    ]


def describe_refusal(run_dir: Path, *, options: Sequence[str], printed: str) -> str:
    """The error for options that sbatch refuses: its own message and the ways out."""
    by_hand = shell_command(["dstrain", "evaluate", run_dir, "--pending"])
    message = "; ".join(line.strip() for line in printed.splitlines() if line.strip())
    return (
        f"machine.evaluation_job: sbatch refuses {json.dumps(list(options), ensure_ascii=False)} ({message}); correct it, "
        f"set it to null to evaluate in the run itself, or evaluate by hand: {by_hand}"
    )


def read_jobs(run_dir: Path) -> dict[Evaluation, list[str]]:
    """The jobs submitted for each evaluation, the earliest first. Malformed lines are skipped."""
    path = RunFolder(run_dir).evaluation_jobs
    jobs: dict[Evaluation, list[str]] = {}
    try:
        lines = read_bytes(path).splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            row = json.loads(line)
            evaluations = [(int(step), int(lease)) for step, lease in row["due"]]
            job = str(row["job"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # a torn line only allows one job more
        for evaluation in evaluations:
            jobs.setdefault(evaluation, []).append(job)
    return jobs


def note_job(run_dir: Path, *, job: str, evaluations: Sequence[Evaluation]) -> None:
    """Record that a job was submitted for these evaluations."""
    row = {"job": job, "due": [list(evaluation) for evaluation in evaluations], "time": timestamp()}
    append_line(RunFolder(run_dir).evaluation_jobs, json.dumps(row))


def _say_once() -> Callable[[str], None]:
    """A function that prints a message the first time only: a refusal recurs at every attempt to submit."""
    printed: set[str] = set()

    def say(message: str) -> None:
        if message not in printed:
            printed.add(message)
            print_message(message)

    return say


if __name__ == "__main__":
    sys.exit(main())
