"""Evaluations that a run has left to another job: which are due, and the small Slurm job that makes them. Knows no torch.

    python -m dstrain.due watch -- --config …     beside a run: submits a job whenever one is due and none is in the queue
    python -m dstrain.due submit -- --config …    the same, once

After `--` stands what launch/train.py is given. Asked by slurm/train.sbatch; ends at once for a run that makes its
evaluations itself.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dstrain.checkpoint.store import current_dirs, name_of
from dstrain.cluster.commands import Run, run_command, split_arguments
from dstrain.cluster.lease import read_claims
from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.reporting.records import load_record
from dstrain.reporting.rows import RunFolderError
from dstrain.train import parse_arguments

SCRIPT = "slurm/evaluate.sbatch"
JOBS_FILE = "evaluation_jobs.jsonl"
WATCH_SECONDS = 15.0
MAX_JOBS = 3
"""Jobs submitted for an evaluation that gave no scores; then it is left to the user."""


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
    while question == "watch":
        submit_due(config, environment=environment, run=run, say=_say)
        time.sleep(WATCH_SECONDS)
    submit_due(config, environment=environment, run=run, say=_say, is_last=True)
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
    tries = _count_tries(run_dir)
    wanted = [one for one in due if tries[one.step, one.lease] < MAX_JOBS]
    if not wanted:
        return None
    name = job_name(run_dir)
    code, queue = run(["squeue", "--noheader", "--name", name, "--format", "%i"])
    if not is_last and (code != 0 or queue.strip()):
        return None
    assert config.machine.evaluation_job is not None
    options = [*config.machine.evaluation_job, f"--job-name={name}", "--dependency=singleton"]
    # the size of this job must not become that of the other
    clean = [f"--unset={key}" for key in sorted(environment) if key.startswith("SLURM_") and key != "SLURM_CONF"]
    code, printed = run(["env", *clean, "sbatch", "--parsable", *options, SCRIPT, str(run_dir), "--due"])
    if code != 0:
        say(f"the evaluations of {run_dir} cannot be submitted: {printed.strip()}")
        return None
    job, steps = printed.strip(), ", ".join(str(one.step) for one in wanted)
    _note(run_dir, job=job, due=wanted)
    say(f"job {job} scores step {steps}")
    return job


def job_name(run_dir: Path) -> str:
    """The name of the evaluation jobs of a run, by which the queue is asked for them."""
    return f"dstrain-evaluate-{hashlib.sha256(str(run_dir.absolute()).encode()).hexdigest()[:12]}"


def _count_tries(run_dir: Path) -> Counter[tuple[int, int]]:
    """Jobs that were submitted for each evaluation."""
    tries: Counter[tuple[int, int]] = Counter()
    path = run_dir / JOBS_FILE
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            tries.update((int(step), int(lease)) for step, lease in json.loads(line)["due"])
        except (ValueError, KeyError, TypeError):
            continue  # a torn line costs a try more
    return tries


def _note(run_dir: Path, *, job: str, due: Sequence[Due]) -> None:
    row = {
        "job": job,
        "due": [[one.step, one.lease] for one in due],
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with (run_dir / JOBS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def _say(message: str) -> None:
    print(f"dstrain: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
