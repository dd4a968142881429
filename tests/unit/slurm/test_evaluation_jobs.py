"""Evaluation jobs: when one is submitted, with which command, and when no more are."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dstrain.checkpoint.pending import PendingEvaluation, list_pending
from dstrain.config.load import dump_config, load_config
from dstrain.config.schema import RunConfig
from dstrain.run_folder.record import write_run_info
from dstrain.run_folder.rows import append_row
from dstrain.slurm.evaluation_jobs import MAX_JOBS, job_name, main, submit_pending

INSIDE = {"SLURM_NTASKS_PER_NODE": "8", "SLURM_CONF": "/etc/slurm.conf", "SLURM_JOB_ID": "7", "HOME": "/root"}


@dataclass
class Slurm:
    """A fake of Slurm's commands."""

    queue: str = ""
    refuses: bool = False
    submitted: list[list[str]] = field(default_factory=list)

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        if command[0] == "squeue":
            return 0, self.queue
        if self.refuses:
            return 1, "sbatch: error: invalid partition"
        self.submitted.append(list(command))
        return 0, f"{100 + len(self.submitted)}\n"


@dataclass
class Case:
    """A run whose step 10 is saved and has a pending evaluation."""

    folder: Path
    slurm: Slurm = field(default_factory=Slurm)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        overrides = [f"output_dir={self.folder / 'run'}", "machine.evaluation_job=['--partition=small one']"]
        self.config: RunConfig = load_config("debug", overrides=overrides)
        self.run_dir = Path(self.config.run_dir)
        self.run_dir.mkdir()
        (self.run_dir / "config.yaml").write_text(dump_config(self.config))
        write_run_info(self.run_dir, {})
        self.row("event", event="start", step=0)
        self.due(10)

    def row(self, kind: str, **values: object) -> None:
        append_row(self.run_dir / "metrics.jsonl", {"kind": kind, "lease": 1, **values})

    def due(self, step: int, *, is_saved: bool = True) -> None:
        self.row("due", step=step, epoch=1.0)
        if is_saved:
            (self.run_dir / "checkpoints" / f"step-{step:08d}.lease-1").mkdir(parents=True)

    def score(self, step: int) -> None:
        path = self.run_dir / "scores" / f"step-{step:08d}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"step": step, "lease": 1, "scores": {"bleu": 1.0}}))

    def submit(self, *, is_last: bool = False) -> str | None:
        return submit_pending(self.config, environment=INSIDE, run=self.slurm, say=self.said.append, is_last=is_last)


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_an_evaluation_without_scores_is_pending_if_its_checkpoint_exists(case: Case) -> None:
    case.due(20, is_saved=False)
    case.due(30)
    assert list_pending(case.run_dir) == [PendingEvaluation(10, 1), PendingEvaluation(30, 1)]
    case.score(10)
    assert list_pending(case.run_dir) == [PendingEvaluation(30, 1)]


def test_a_job_is_submitted_with_the_recipes_options_and_without_the_size_of_this_one(case: Case) -> None:
    assert case.submit() == "101"
    (command,) = case.slurm.submitted
    assert command == [
        "env",
        "--unset=SLURM_JOB_ID",
        "--unset=SLURM_NTASKS_PER_NODE",
        "sbatch",
        "--parsable",
        "--partition=small one",
        f"--job-name={job_name(case.run_dir)}",
        "--dependency=singleton",
        "slurm/evaluate.sbatch",
        str(case.run_dir),
        "--pending",
    ]
    assert case.said == ["job 101 scores step 10"]


def test_one_job_at_a_time_is_queued_but_the_last_evaluation_gets_its_own(case: Case) -> None:
    case.slurm.queue = "101\n"
    assert case.submit() is None
    assert case.submit(is_last=True) == "101"


def test_without_pending_evaluations_nothing_is_submitted(case: Case) -> None:
    case.score(10)
    assert case.submit() is None
    assert case.submit(is_last=True) is None


def test_an_evaluation_whose_jobs_produce_no_scores_is_given_up_and_others_are_not(case: Case) -> None:
    for _ in range(MAX_JOBS):
        assert case.submit() is not None
    assert case.submit() is None
    with (case.run_dir / "evaluation_jobs.jsonl").open("a") as file:
        file.write('{"torn')
    case.due(20)
    assert case.submit() is not None
    assert case.said[-1].endswith("scores step 20")


def test_a_refusal_names_the_key_the_message_of_sbatch_and_the_way_out(case: Case) -> None:
    case.slurm.refuses = True
    assert case.submit() is None
    assert case.said == [
        'machine.evaluation_job: sbatch refuses ["--partition=small one"] (sbatch: error: invalid partition); correct it, set it '
        f"to null to evaluate in the run itself, or evaluate by hand: dstrain evaluate {case.run_dir} --pending"
    ]
    assert list_pending(case.run_dir) == [PendingEvaluation(10, 1)]


def test_a_run_that_has_written_nothing_has_no_pending_evaluations(tmp_path: Path) -> None:
    config = load_config("debug", overrides=[f"output_dir={tmp_path}", "machine.evaluation_job=[]"])
    assert submit_pending(config, environment={}, run=Slurm(), say=print) is None


def test_the_watch_prints_a_repeated_refusal_once(
    case: Case, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = 0

    def pause(seconds: float) -> None:
        nonlocal pauses
        pauses += 1
        case.slurm.refuses = pauses < 3
        if pauses > 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("dstrain.slurm.evaluation_jobs.time.sleep", pause)
    case.slurm.refuses = True
    with pytest.raises(KeyboardInterrupt):
        main(["watch", "--", "--config", str(case.run_dir / "config.yaml")], environment=INSIDE, run=case.slurm)
    refused, *submitted = capsys.readouterr().err.splitlines()
    assert refused.startswith("dstrain: machine.evaluation_job: sbatch refuses")
    assert submitted == ["dstrain: job 101 scores step 10"]


def test_the_watch_ends_at_once_for_a_run_that_evaluates_itself(case: Case) -> None:
    slurm = Slurm()
    assert main(["watch", "--", "--config", "debug", f"output_dir={case.run_dir}"], environment={}, run=slurm) == 0
    assert main(["submit", "--", "--config", str(case.run_dir / "config.yaml")], environment={}, run=slurm) == 0
    assert len(slurm.submitted) == 1


def test_the_program_runs_as_a_module(case: Case) -> None:
    command = [sys.executable, "-m", "dstrain.slurm.evaluation_jobs", "submit", "--"]
    environment = os.environ | {"PATH": "/nowhere"}  # without env and squeue nothing is submitted
    arguments = ["--config", str(case.run_dir / "config.yaml")]
    done = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr.startswith("dstrain: machine.evaluation_job: sbatch refuses")
