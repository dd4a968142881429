"""Evaluations that a run has left to another job: which are due, and the small Slurm job that makes them. Knows no torch.

    python -m dstrain.due watch -- --config …     beside a run: submits a job whenever one is due and none is in the queue
    python -m dstrain.due submit -- --config …    the same, once

After `--` stands what launch/train.py is given. Asked by slurm/train.sbatch; ends at once for a run that makes its
evaluations itself.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dstrain.checkpoint.store import current_dirs, name_of
from dstrain.cluster.commands import Run, run_command, split_arguments
from dstrain.cluster.lease import read_claims
from dstrain.cluster.small_jobs import MAX_JOBS, describe_refusal, job_name, note_job, plan_submission, read_jobs
from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.reporting.records import load_record
from dstrain.reporting.rows import RunFolderError
from dstrain.train import parse_arguments

WATCH_SECONDS = 15.0


@dataclass(frozen=True, slots=True, order=True)
class Due:
    """An evaluation without scores whose checkpoint is there."""

    step: int
    lease: int


def list_due(run_dir: Path) -> list[Due]:
    """The due evaluations of a run, the oldest first; raises RunFolderError where the folder is broken."""
    there = {
        (name.step, name.lease)
        for path in current_dirs(run_dir / "checkpoints", claims=read_claims(run_dir))
        if (name := name_of(path))
    }
    rows = load_record(run_dir).due_rows
    return sorted(Due(row.step, row.lease) for row in rows if (row.step, row.lease) in there)


def main(
    argv: Sequence[str] | None = None, *, environment: Mapping[str, str] = os.environ, run: Run = run_command
) -> int:
    """Submit what is due, once or for as long as this process lives."""
    own, training = split_arguments(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m dstrain.due", description="Asked by slurm/train.sbatch.")
    parser.add_argument("question", choices=["watch", "submit"])
    question = parser.parse_args(own).question
    given = parse_arguments(training)
    config = load_config(given.config, overrides=given.overrides)
    if config.machine.evaluation_job is None:
        return 0
    say = _say_once()
    while question == "watch":
        submit_due(config, environment=environment, run=run, say=say)
        time.sleep(WATCH_SECONDS)
    submit_due(config, environment=environment, run=run, say=say, is_last=True)
    return 0


def submit_due(
    config: RunConfig,
    *,
    environment: Mapping[str, str],
    run: Run,
    say: Callable[[str], None],
    is_last: bool = False,
) -> str | None:
    """Submit a job for what is due, unless one is in the queue already; gives its id.

    A job in the queue takes up what becomes due while it runs; whether it saw the last, nobody knows, so that one gets a job
    that begins after it.
    """
    run_dir = Path(config.run_dir)
    try:
        due = list_due(run_dir)
    except (RunFolderError, OSError):  # the run may not have begun to write
        return None
    jobs = read_jobs(run_dir)
    wanted = [one for one in due if len(jobs.get((one.step, one.lease), ())) < MAX_JOBS]
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
    job, steps = printed.strip(), ", ".join(str(one.step) for one in wanted)
    note_job(run_dir, job=job, evaluations=[(one.step, one.lease) for one in wanted])
    say(f"job {job} scores step {steps}")
    return job


def _say_once() -> Callable[[str], None]:
    """Says what was not said before: a refusal comes again at every try."""
    said: set[str] = set()

    def say(message: str) -> None:
        if message not in said:
            said.add(message)
            _say(message)

    return say


def _say(message: str) -> None:
    print(f"dstrain: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
