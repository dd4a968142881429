"""The real launchers, signals and failures, each tested once because they are slow."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dstrain.checkpoint.store import newest_valid
from dstrain.cluster.environment import free_port
from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.run_folder.outcome import read_outcome
from tests.system.runs import build_run, read_rows

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
TRAIN = [str(ROOT / "launch" / "train.py")]
PORT = ["--master_port", str(free_port())]
DEEPSPEED = [str(TOOLS / "deepspeed"), "--quiet", "--num_gpus", "2", *PORT]


def overrides(folder: Path) -> list[str]:
    return [f"output_dir={folder / 'run'}", f"machine.cache_dir={folder / 'cache'}", "logging.tensorboard=false"]


def start(command: list[str], *, folder: Path, extra: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    """A training of the debug recipe, without an activated environment."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--config", "debug", *overrides(folder), *extra],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_step(folder: Path, *, step: int) -> None:
    metrics = folder / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.exists() and f'"kind": "train", "step": {step},' in metrics.read_text()):
        assert time.monotonic() < deadline, "the run did not get that far"
        time.sleep(0.1)


@pytest.mark.parametrize(
    "command",
    [
        [*DEEPSPEED, *TRAIN],
        [*DEEPSPEED, "--module", "dstrain.train"],
        [str(TOOLS / "torchrun"), "--nproc-per-node", "2", *PORT, *TRAIN],
        [sys.executable, *TRAIN],
        ["env", f"PATH={TOOLS}:/usr/bin:/bin", f"MASTER_PORT={PORT[1]}", str(ROOT / "launch" / "single_node.sh")],
    ],
    ids=["deepspeed", "deepspeed --module", "torchrun", "python", "single_node.sh"],
)
def test_every_launcher_takes_the_same_arguments_and_finishes(command: list[str], tmp_path: Path) -> None:
    process = start(command, folder=tmp_path)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert "card: " in printed
    assert (tmp_path / "run" / "best" / "model.safetensors").is_file()
    noise = [line for line in printed.splitlines() if "WARNING" in line or "Warning" in line]
    assert len([line for line in noise if "accelerator" not in line]) == 0, noise


def test_a_rank_that_fails_ends_the_others_and_its_traceback_comes_first(tmp_path: Path) -> None:
    code = (
        "import os, runpy, dstrain.engine.engine as engine\n"
        "step = engine.Engine.step\n"
        "def fail(self, batch, *, step, **settings):\n"
        "    if os.environ['RANK'] == '1' and step == 3: raise RuntimeError('the disk of rank 1 is on fire')\n"
        "    return original(self, batch, step=step, **settings)\n"
        "original, engine.Engine.step = step, fail\n"
        "runpy.run_module('dstrain.train', run_name='__main__')\n"
    )
    script = tmp_path / "failing.py"
    script.write_text(code)
    process = start([*DEEPSPEED, str(script)], folder=tmp_path, extra=("machine.min_micro_batches=2",))
    printed, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert printed.index("rank 1 failed:") < printed.index("the disk of rank 1 is on fire")
    assert "rank 0 ends because rank 1 failed" in printed
    assert printed.count("Traceback") <= 2, printed


def test_ranks_whose_launcher_was_terminated_save_and_end(tmp_path: Path) -> None:
    process = start([*DEEPSPEED, *TRAIN], folder=tmp_path, extra=("training.max_steps=100000",))
    wait_for_step(tmp_path, step=2)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=120)  # ends when the last rank has closed the pipe
    config = build_run(tmp_path)
    (*_, last) = read_rows(config, kind="event")
    assert last["event"] == "stop"
    assert last["message"] == "its launcher died"
    assert newest_valid(tmp_path / "run" / "checkpoints", on_broken=lambda problem: None) is not None


@pytest.mark.parametrize(
    ("command", "number", "code"),
    [
        ([sys.executable, *TRAIN], signal.SIGUSR1, EXIT_PREEMPTED),
        ([str(TOOLS / "torchrun"), "--nproc-per-node", "2", *PORT, *TRAIN], signal.SIGTERM, 1),
    ],
    ids=["python", "torchrun"],
)
def test_a_signalled_run_says_that_it_was_saved_even_if_the_launcher_hides_its_exit_code(
    command: list[str], number: signal.Signals, code: int, tmp_path: Path
) -> None:
    process = start(command, folder=tmp_path, extra=("training.max_steps=100000", "machine.min_micro_batches=2"))
    wait_for_step(tmp_path, step=2)
    os.kill(process.pid, number)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == code, printed
    outcome = read_outcome(tmp_path / "run")
    assert outcome is not None
    assert (outcome.outcome, outcome.exit_code) == ("preempted", EXIT_PREEMPTED)
    assert newest_valid(tmp_path / "run" / "checkpoints", on_broken=pytest.fail) is not None


def test_a_killed_run_resumes_from_its_newest_checkpoint(tmp_path: Path) -> None:
    process = start([sys.executable, *TRAIN], folder=tmp_path, extra=("checkpoint.every_steps=5",))
    wait_for_step(tmp_path, step=12)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    again = start([sys.executable, *TRAIN], folder=tmp_path, extra=("checkpoint.every_steps=5",))
    printed, _ = again.communicate(timeout=300)
    assert again.returncode == 0, printed
    assert "resuming from" in printed


def test_a_debug_run_memorises_a_few_rows(tmp_path: Path) -> None:
    command = ["env", f"PATH={TOOLS}:/usr/bin:/bin", str(ROOT / "launch" / "debug.sh"), "--overfit", "4"]
    process = start(command, folder=tmp_path)
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0, printed
    losses = [row["loss"] for row in read_overfit(tmp_path)]
    assert losses[-1] < 0.1 < losses[0], losses


def read_overfit(folder: Path) -> list[dict[str, float]]:
    (run,) = (path for path in folder.iterdir() if path.name.startswith("run-"))
    return read_rows(build_run(folder, output_dir=str(run)), kind="train")
