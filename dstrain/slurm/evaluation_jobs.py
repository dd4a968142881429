"""Evaluations that a run has left to another job, and the small Slurm jobs that make them. Knows no torch.

    python -m dstrain.slurm.evaluation_jobs watch -- --config …     beside a run: submits a job whenever it is needed
    python -m dstrain.slurm.evaluation_jobs submit -- --config …    the same, once

Every job is written down in `<run>/evaluation_jobs.jsonl`.
After `--` stands what launch/train.py is given. Asked by slurm/train.sbatch; ends at once for a run that makes its
evaluations itself.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dstrain.checkpoint.pending import list_pending
from dstrain.config.arguments import parse_arguments, split_arguments
from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.run_folder.reading import RunFolderError
from dstrain.slurm.commands import Run, run_command

SCRIPT = "slurm/evaluate.sbatch"
JOBS_FILE = "evaluation_jobs.jsonl"
MAX_JOBS = 3
"""Jobs submitted for an evaluation that gave no scores; then it is left to the user."""
Evaluation = tuple[int, int]
"""Step and lease of the checkpoint to be scored."""


WATCH_SECONDS = 15.0


def main(
    argv: Sequence[str] | None = None, *, environment: Mapping[str, str] = os.environ, run: Run = run_command
) -> int:
    """Submit what is due, once or for as long as this process lives."""
    own, training = split_arguments(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="python -m dstrain.slurm.evaluation_jobs", description="Asked by slurm/train.sbatch."
    )
    parser.add_argument("question", choices=["watch", "submit"])
    question = parser.parse_args(own).question
    given = parse_arguments(training)
    config = load_config(given.config, overrides=given.overrides)
    if config.machine.evaluation_job is None:
        return 0
    say = _say_once()
    while question == "watch":
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
    """Submit a job for what is due, unless one is in the queue already; gives its id.

    A job in the queue takes up what becomes due while it runs; whether it saw the last, nobody knows, so that one gets a job
    that begins after it.
    """
    run_dir = Path(config.run_dir)
    try:
        due = list_pending(run_dir)
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


def job_name(run_dir: Path) -> str:
    """The name of the evaluation jobs of a run, by which the queue is asked for them."""
    return f"dstrain-evaluate-{hashlib.sha256(str(run_dir.absolute()).encode()).hexdigest()[:12]}"


def plan_submission(
    run_dir: Path, *, options: Sequence[str], environment: Mapping[str, str], is_test: bool = False
) -> list[str]:
    """The command that submits a job with the recipe's `options`, or has Slurm say whether it would take such a job."""
    # the size of the job that asks must not become that of the other
    clean = [f"--unset={key}" for key in sorted(environment) if key.startswith("SLURM_") and key != "SLURM_CONF"]
    asked = [f"--job-name={job_name(run_dir)}", "--dependency=singleton"]
    return [
        "env",
        *clean,
        "sbatch",
        "--test-only" if is_test else "--parsable",
        *options,
        *asked,
        SCRIPT,
        str(run_dir),
        "--pending",
    ]


def describe_refusal(run_dir: Path, *, options: Sequence[str], printed: str) -> str:
    """That Slurm takes no job with these options, by its own words, and the ways out."""
    words = "; ".join(line.strip() for line in printed.splitlines() if line.strip())
    return (
        f"machine.evaluation_job: sbatch refuses {json.dumps(list(options), ensure_ascii=False)} ({words}); correct it, set null "
        f"to evaluate in the run itself, or make the evaluations by hand: dstrain evaluate {run_dir} --pending"
    )


def read_jobs(run_dir: Path) -> dict[Evaluation, list[str]]:
    """The jobs that were submitted for each evaluation, the earliest first; broken lines are passed over."""
    path = run_dir / JOBS_FILE
    jobs: dict[Evaluation, list[str]] = {}
    try:
        lines = path.read_bytes().splitlines() if path.is_file() else []
    except OSError:
        return {}
    for line in lines:
        try:
            row = json.loads(line)
            evaluations = [(int(step), int(lease)) for step, lease in row["due"]]
            job = str(row["job"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # a torn line costs a try more
        for evaluation in evaluations:
            jobs.setdefault(evaluation, []).append(job)
    return jobs


def note_job(run_dir: Path, *, job: str, evaluations: Sequence[Evaluation]) -> None:
    """Write down that a job was submitted for these evaluations."""
    time = datetime.now(UTC).isoformat(timespec="seconds")
    row = {"job": job, "due": [list(evaluation) for evaluation in evaluations], "time": time}
    with (run_dir / JOBS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
