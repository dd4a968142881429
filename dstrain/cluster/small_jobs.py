"""The small Slurm jobs that score for a run: how one is asked for, and `<run>/evaluation_jobs.jsonl`, where each is written down.

Decides nothing: which evaluations are due, and when a job is submitted for them, is the business of whoever asks.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

SCRIPT = "slurm/evaluate.sbatch"
JOBS_FILE = "evaluation_jobs.jsonl"
MAX_JOBS = 3
"""Jobs submitted for an evaluation that gave no scores; then it is left to the user."""

Evaluation = tuple[int, int]
"""Step and lease of the checkpoint to be scored."""


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
        "--due",
    ]


def describe_refusal(run_dir: Path, *, options: Sequence[str], printed: str) -> str:
    """That Slurm takes no job with these options, by its own words, and the ways out."""
    words = "; ".join(line.strip() for line in printed.splitlines() if line.strip())
    return (
        f"machine.evaluation_job: sbatch refuses {json.dumps(list(options), ensure_ascii=False)} ({words}); correct it, set null "
        f"to evaluate in the run itself, or make the evaluations by hand: dstrain evaluate {run_dir} --due"
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
