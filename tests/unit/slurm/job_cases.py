"""A batch script of job 7 with a fake Slurm, for the tests of its questions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dstrain.slurm.job import main
from dstrain.slurm.requeue import JobEnd, read_history
from tests.unit.slurm.fake_nodes import FakeNodes


@dataclass
class Slurm:
    """Returns preset answers and records the requests."""

    queue: str = "None N/A 0"
    down: str = ""
    requeue_code: int = 0
    refusal: str = ""
    """The error of sbatch for the evaluation job."""
    requeued: list[str] = field(default_factory=list)
    asked_about: list[str] = field(default_factory=list)
    tried: list[list[str]] = field(default_factory=list)

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        if command[0] == "squeue":
            self.asked_about.append(command[command.index("--jobs") + 1])
        if command[0] == "env":
            self.tried.append(list(command))
            return (1 if self.refusal else 0), self.refusal
        if command[:2] == ["scontrol", "requeue"]:
            self.requeued.append(command[2])
            return self.requeue_code, "Job may not be requeued"
        return 0, {"squeue": self.queue, "sinfo": self.down}[command[0]]


@dataclass
class Batch:
    """A batch script of job 7 that trains into `folder/run`."""

    folder: Path
    slurm: Slurm = field(default_factory=Slurm)
    restart: int = 0
    array: dict[str, str] = field(default_factory=dict)
    """Its variables of a job array."""
    ends: float | None = None
    """When its allocation ends."""
    launch: int = 0
    lost: FakeNodes | None = None
    """The nodes of a job that loses some."""

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    def ask(self, question: str, *options: str, overrides: Sequence[str] = ()) -> int:
        environment = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node1,node2"} | self.array
        if self.ends is not None:
            environment["SLURM_JOB_END_TIME"] = str(round(self.ends))
        if self.restart:
            environment["SLURM_RESTART_COUNT"] = str(self.restart)
        environment["DSTRAIN_LAUNCH"] = str(self.launch)
        training = ["--config", "debug", f"output_dir={self.run_dir}", *overrides]
        return main([question, *options, "--", *training], environment=environment, run=self._run)

    def _run(self, command: Sequence[str]) -> tuple[int, str]:
        asks_about_causes = command[0] == "squeue" and "--Format" in command
        if self.lost is None or asks_about_causes or command[:2] == ["scontrol", "requeue"]:
            return self.slurm(command)
        return self.lost(command)

    def save(self, step: int) -> None:
        (self.run_dir / "checkpoints" / f"step-{step:08d}.lease-1").mkdir(parents=True)

    def report(self, text: str) -> None:
        (self.run_dir / "failures").mkdir(exist_ok=True)
        (self.run_dir / "failures" / "rank-1.txt").write_text(text)

    def last_end(self) -> JobEnd:
        (*_, last) = read_history(self.run_dir)
        assert isinstance(last, JobEnd)
        return last
