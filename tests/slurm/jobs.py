"""Jobs on the cluster of the tests: submitted as users do, watched through squeue and the run folder."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstrain.config.load import dump_config
from dstrain.config.schema import RunConfig
from tests.system.runs import build_run

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "slurm/train.sbatch"
DIRECTORY = Path(os.environ.get("DSTRAIN_SLURM_DIR", "/tmp/dstrain-slurm"))
TWO_BY_TWO = ("--nodes=2", "--ntasks-per-node=2")
PATIENCE_SECONDS = 240.0
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


@dataclass(frozen=True)
class Job:
    """A submitted job."""

    id: str
    config: RunConfig
    wait_code: int | None = None
    """Exit code of `sbatch --wait`."""
    output: Path | None = None
    """The log, if it is not beside the run folder."""

    def log(self) -> str:
        """The output of all attempts."""
        path = self.output or log_path(self.config)
        return path.read_text(errors="replace") if path.exists() else ""

    def field(self, name: str) -> str:
        """A value that scontrol shows."""
        shown = call("scontrol", "show", "job", "--oneliner", self.id).split()
        return next(part.split("=", 1)[1] for part in shown if part.startswith(f"{name}="))

    def wait_end(self) -> str:
        """Wait until the job has ended; returns its state and exit code, such as COMPLETED 0:0."""
        until(lambda: self.field("JobState") in ENDED, else_show=self.log)
        return f"{self.field('JobState')} {self.field('ExitCode')}"

    def wait_step(self, step: int) -> None:
        """Wait until a training step was logged."""
        metrics = Path(self.config.run_dir) / "metrics.jsonl"
        row = f'"kind": "train", "step": {step},'
        until(lambda: metrics.exists() and row in metrics.read_text(), else_show=self.log)

    def restart(self, number: int) -> None:
        """Start the job at once after its requeue with this number, since Slurm would wait for two minutes."""
        until(lambda: self.is_waiting(number), else_show=self.log)
        while self.is_waiting(number):
            time.sleep(2.5)  # before that its credential is still revoked, and it would fail
            call("scontrol", "update", f"JobId={self.id}", "StartTime=now", check=False)  # it may have started already

    def is_waiting(self, number: int) -> bool:
        """Whether the job was requeued this many times and has not started again."""
        return (self.field("JobState"), self.field("Restarts")) == ("PENDING", str(number))


def build_recipe(folder: Path, **changes: Any) -> RunConfig:
    """A tiny recipe that 4 ranks can share, and its file."""
    settings = {"machine__min_micro_batches": 4, "training__max_steps": 40, "evaluation__every_steps": 10, **changes}
    config = build_run(folder, **settings)
    recipe_path(config).write_text(dump_config(config))
    return config


def recipe_path(config: RunConfig) -> Path:
    """The file of a recipe, beside its run folder."""
    return Path(config.run_dir).parent / "recipe.yaml"


def log_path(config: RunConfig) -> Path:
    """The log of a recipe's job."""
    return Path(config.run_dir).parent / "job.log"


def submit(
    config: RunConfig,
    *,
    options: Sequence[str] = TWO_BY_TWO,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    wait: bool = False,
    script: str = SCRIPT,
    arguments: Sequence[str] | None = None,
    output: Path | None = None,
) -> Job:
    """Submit a batch script, with the recipe if no other arguments are given."""
    log = output or log_path(config)
    command = ["sbatch", "--parsable", *(["--wait"] if wait else []), *options, f"--output={log}", script]
    given = ["--config", str(recipe_path(config))] if arguments is None else arguments
    done = subprocess.run(
        [*command, *given, *overrides],
        cwd=ROOT,
        env=slurm_environment() | dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.stdout.strip().isdecimal(), done.stderr
    return Job(done.stdout.strip(), config, wait_code=done.returncode if wait else None, output=output)


def call(*command: str, check: bool = True) -> str:
    """The output of a Slurm command."""
    done = subprocess.run(command, env=slurm_environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 or not check, (command, done.stderr)
    return done.stdout


def run_cluster(*command: str) -> None:
    """Run a command of the cluster script."""
    # to a file, because the daemons that it starts keep a pipe open
    subprocess.run([Path(__file__).with_name("cluster"), *command], check=True, timeout=300, stdout=sys.stderr.fileno())


def slurm_environment() -> dict[str, str]:
    """The environment of Slurm's commands and of the jobs."""
    return os.environ | {
        "SLURM_CONF": str(DIRECTORY / "slurm.conf"),
        "DSTRAIN_PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
    }


def until(condition: Callable[[], bool], *, else_show: Callable[[], str]) -> None:
    """Wait until a condition holds; fail if it does not in time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, else_show()
        time.sleep(0.1)
