"""The real launchers, signals and failures, each tested once because they are slow."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from dstrain.checkpoint.store import newest_valid
from dstrain.cluster.environment import MPI, free_port
from dstrain.cluster.exit_codes import EXIT_INTERRUPTED, EXIT_PREEMPTED
from dstrain.cluster.launcher import ancestors
from dstrain.config.load import dump_config
from dstrain.config.schema import RunConfig
from dstrain.run_folder.outcome import read_outcome
from tests.system.runs import build_run, read_rows, train

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent
TRAIN = [str(ROOT / "launch" / "train.py")]
PORT = ["--master_port", str(free_port())]
DEEPSPEED = [str(TOOLS / "deepspeed"), "--quiet", "--num_gpus", "2", *PORT]


def overrides(folder: Path) -> list[str]:
    return [f"output_dir={folder / 'run'}", f"machine.cache_dir={folder / 'cache'}", "logging.tensorboard=false"]


def start(
    command: list[str], *, folder: Path, extra: tuple[str, ...] = (), recipe: str = "debug"
) -> "subprocess.Popen[str]":
    """A training of a recipe, without an activated environment."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--config", recipe, *overrides(folder), *extra],
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
    assert ": finished at step 20 of 20" in printed
    assert "  card   " in printed
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


def find_rank(launcher: int, *, rank: int) -> int:
    """The process id of a rank that a launcher has started, directly or not."""
    for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
        with suppress(OSError):
            is_rank = f"\0RANK={rank}\0" in f"\0{Path(f'/proc/{pid}/environ').read_text()}"
            if is_rank and launcher in ancestors(pid, depth=3):
                return pid
    raise AssertionError(f"rank {rank} is not running")


@pytest.mark.parametrize("options", [["--standalone"], PORT], ids=["standalone", "with a port"])
def test_a_group_that_torchrun_restarts_resumes_and_ends_as_an_undisturbed_one(
    options: list[str], tmp_path: Path
) -> None:
    def configure(name: str) -> RunConfig:
        return build_run(
            tmp_path / name, training__max_steps=60, checkpoint__every_steps=10, machine__min_micro_batches=2
        )

    straight, restarted = configure("straight"), configure("restarted")
    assert train(straight, world_size=2) == [0, 0]
    recipe = tmp_path / "restarted.yaml"
    recipe.write_text(dump_config(restarted))
    command = [str(TOOLS / "torchrun"), *options, "--nproc-per-node", "2", "--max-restarts", "1", *TRAIN]
    process = start(command, folder=tmp_path / "restarted", recipe=str(recipe))
    wait_for_step(tmp_path / "restarted", step=25)
    os.kill(find_rank(process.pid, rank=1), signal.SIGKILL)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert "resuming from" in printed
    weights = [Path(config.run_dir, "final", "model.safetensors").read_bytes() for config in (straight, restarted)]
    assert weights[0] == weights[1]


def test_ranks_of_mpirun_meet_and_share_the_run(tmp_path: Path) -> None:
    names = next(names for names in MPI if names[0] == "PMI_RANK")
    ranks = [
        start(
            [
                "env",
                *(f"{name}={value}" for name, value in zip(names, (rank, 2, rank, 2), strict=True)),
                sys.executable,
                *TRAIN,
            ],
            folder=tmp_path,
            extra=("machine.min_micro_batches=2",),
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=300)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], printed
    assert json.loads((tmp_path / "run" / "run.json").read_text())["world_size"] == 2


@pytest.mark.parametrize(
    "command",
    [["mpirun.openmpi", "--allow-run-as-root", "--oversubscribe"], ["mpirun.mpich"]],
    ids=["openmpi", "mpich"],
)
def test_an_installed_mpirun_starts_a_run(command: list[str], tmp_path: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed (Debian: apt-get install openmpi-bin mpich)")
    whole = [*command, "-np", "2", sys.executable, *TRAIN]
    process = start(whole, folder=tmp_path, extra=("machine.min_micro_batches=2",))
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    found = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (found["world_size"], found["launcher"]) == (2, "mpirun")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_rank_that_waits_for_others_says_so_and_ends_when_told(number: signal.Signals, tmp_path: Path) -> None:
    alone = ["RANK=0", "WORLD_SIZE=2", f"MASTER_PORT={free_port()}", "MASTER_ADDR=127.0.0.1"]
    process = start(["env", *alone, sys.executable, *TRAIN], folder=tmp_path)
    assert process.stdout is not None
    said = next(line for line in process.stdout if "waiting for" in line)
    assert f"waiting for rank 1 of 2 at 127.0.0.1:{alone[2][12:]} (as RANK and WORLD_SIZE say)" in said
    process.send_signal(number)
    assert process.wait(timeout=30) == (EXIT_PREEMPTED if number == signal.SIGTERM else EXIT_INTERRUPTED)


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
