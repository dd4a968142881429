"""How ranks are started, killed and signalled, with a small program in place of training."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from dstrain.attempt.rank_records import DRILL_VARIABLE, Drill, read_drill
from dstrain.drill.compare import (
    Exit,
)
from dstrain.drill.launch import count_gpus, interrupted_like_ctrl_c, launch_ranks, rank_environment
from dstrain.drill.scenarios import (
    RankLaunch,
)

PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
from dstrain.attempt.rank_records import Phases, ranks_dir, read_drill
folder, rank = Path(sys.argv[1]), os.environ["RANK"]
(folder / f"environment-{rank}.json").write_text(json.dumps(dict(os.environ)))
print("rank", rank, "with", sys.argv[2:], flush=True)
"""
TRAINS = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(85))
(folder / f"ready-{rank}").touch()
while len(list(folder.glob("ready-*"))) < int(os.environ["WORLD_SIZE"]):
    time.sleep(0.01)
phases = Phases(ranks_dir(folder), rank=int(rank), attempt=1, drill=read_drill(os.environ))
for step in range(1, 100_000):
    if rank == "0":
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"kind": "train", "step": step, "epoch": 0.1, "loss": 1.0}) + "\\n")
    phases.enter("step", step=step)
    time.sleep(0.01)
"""


def start(
    body: str, launch: RankLaunch, *, folder: Path, minutes: float = 2.0, environment: dict[str, str] | None = None
) -> Exit:
    return launch_ranks(
        launch,
        config=folder / "config.yaml",
        run_dir=folder,
        log=folder / "log.txt",
        minutes=minutes,
        environment={"PYTHONPATH": os.pathsep.join(sys.path)} | (environment or {}),
        program=(sys.executable, "-c", PROGRAM + body, str(folder)),
    )


def child_is_gone(folder: Path) -> bool:
    """Whether the process that noted its id there is gone."""
    pid = int((folder / "child.txt").read_text())
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return True
        if stat.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_every_rank_gets_its_number_and_the_same_port(tmp_path: Path) -> None:
    given = {"TORCHELASTIC_RUN_ID": "x", "CROSS_RANK": "0", "RANK": "7", "KEPT": "yes", DRILL_VARIABLE: "kill:step:1"}
    assert start("sys.exit(int(rank))", RankLaunch(3), folder=tmp_path, environment=given).codes == (0, 1, 2)
    seen = [json.loads((tmp_path / f"environment-{rank}.json").read_text()) for rank in range(3)]
    for rank, environment in enumerate(seen):
        assert (environment["RANK"], environment["LOCAL_RANK"]) == (str(rank), str(rank))
        assert (environment["WORLD_SIZE"], environment["LOCAL_WORLD_SIZE"]) == ("3", "3")
        assert (environment["MASTER_ADDR"], environment["KEPT"]) == ("127.0.0.1", "yes")
        assert environment.keys() & {"TORCHELASTIC_RUN_ID", "CROSS_RANK", DRILL_VARIABLE} == set()
    assert len({environment["MASTER_PORT"] for environment in seen}) == 1
    printed = (tmp_path / "log.txt").read_text()
    assert printed.startswith("--- ranks: 3; to the end\n")
    for rank in range(3):
        assert f"rank {rank} with ['--config', '{tmp_path / 'config.yaml'}']" in printed


def test_a_drill_is_passed_to_its_own_launch_only() -> None:
    drill = Drill("write part", 2, 1)
    environment = rank_environment({}, rank=0, num_ranks=2, port=1, launch=RankLaunch(2, drill))
    assert read_drill(environment) == drill
    assert DRILL_VARIABLE not in rank_environment(environment, rank=0, num_ranks=2, port=1, launch=RankLaunch(2))


def test_a_kill_is_reported_with_the_phase_and_step_of_the_record(tmp_path: Path) -> None:
    exits = start(TRAINS, RankLaunch(2, Drill("step", 5)), folder=tmp_path)
    assert exits == Exit((-9, -9), stopped_in="step, step 5")


def test_a_record_of_another_phase_does_not_count(tmp_path: Path) -> None:
    body = "Phases(ranks_dir(folder), rank=0, attempt=1).enter('export')\nos.kill(os.getpid(), signal.SIGKILL)"
    assert start(body, RankLaunch(1, Drill("step", 5)), folder=tmp_path) == Exit((-9,), stopped_in=None)


def test_sigterm_reaches_all_ranks_once_the_step_is_written(tmp_path: Path) -> None:
    exits = start(TRAINS, RankLaunch(2, sigterm_after=3), folder=tmp_path)
    assert exits.codes == (85, 85)
    assert not exits.timed_out
    assert '"step": 3' in (tmp_path / "metrics.jsonl").read_text()


CHILD = """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
(folder / "child.tmp").write_text(str(child.pid))
(folder / "child.tmp").rename(folder / "child.txt")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(600)
"""


def test_a_launch_that_exceeds_its_time_limit_is_killed_with_its_children(tmp_path: Path) -> None:
    clock = iter([0.0, *[1.0] * 5])
    found: list[float] = []

    def monotonic() -> float:
        """A minute passes as soon as the program's own child is there."""
        if (tmp_path / "child.txt").exists():
            found.append(61.0)
        return found[-1] if found else next(clock, 1.0)

    exits = launch_ranks(
        RankLaunch(1),
        config=tmp_path / "config.yaml",
        run_dir=tmp_path,
        log=tmp_path / "log.txt",
        minutes=1.0,
        environment={"PYTHONPATH": os.pathsep.join(sys.path)},
        program=(sys.executable, "-c", PROGRAM + CHILD, str(tmp_path)),
        monotonic=monotonic,
    )
    assert exits == Exit((-9,), timed_out=True)
    assert child_is_gone(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_drill_ends_its_ranks(tmp_path: Path, number: signal.Signals) -> None:
    def interrupt() -> None:
        while not (tmp_path / "child.txt").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    before = signal.getsignal(signal.SIGTERM)
    # a shell starts what it puts into the background with SIGINT ignored
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interrupted_like_ctrl_c(), pytest.raises(KeyboardInterrupt):
            start(CHILD, RankLaunch(1), folder=tmp_path)
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert child_is_gone(tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, 2),
        ({"CUDA_VISIBLE_DEVICES": ""}, 0),
        ({"CUDA_VISIBLE_DEVICES": "1"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "0, 3,GPU-8a"}, 3),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,2"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0),
    ],
)
def test_gpus_are_counted_by_files_and_variables(tmp_path: Path, environment: dict[str, str], expected: int) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert count_gpus(environment, devices=tmp_path) == expected
