"""A rank notices that the process which started it is gone; real processes, no mock."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstrain.cluster.launcher import ancestors, find_launcher, parent_of, watch_launcher

PATIENCE_SECONDS = 60.0
RANK = """
import os, sys, threading
from pathlib import Path
from dstrain.cluster import launcher as watched
from dstrain.cluster.launcher import find_launcher, watch_launcher
watched.CHECK_SECONDS = 0.1
launcher, folder = sys.argv[1], Path(sys.argv[2])
died = threading.Event()
watch_launcher(find_launcher(launcher), on_death=died.set)
(folder / "rank").write_text(str(os.getpid()))
died.wait(float(sys.argv[3]))
(folder / "end").write_text("noticed" if died.is_set() else "unnoticed")
"""
STARTER = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"


def start_rank(launcher: str, *, folder: Path, depth: int, wait_seconds: float) -> subprocess.Popen[bytes]:
    """A rank below `depth` starting processes, of which the outermost is returned."""
    starter = [sys.executable, "-c", STARTER]
    command = [*starter * depth, sys.executable, "-c", RANK, launcher, str(folder), str(wait_seconds)]
    return subprocess.Popen(command)


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if path.is_file() and (text := path.read_text()):
            return text
        time.sleep(0.02)
    pytest.fail(f"{path.name} was never written")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[int]]:
    """Process ids to end whatever happens."""
    processes: list[int] = []
    yield processes
    for process in processes:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.mark.parametrize(
    ("launcher", "depth", "killed"), [("torchrun", 1, 0), ("deepspeed", 2, 0), ("deepspeed", 2, 1)]
)
def test_the_death_of_a_launcher_is_noticed(
    launcher: str, depth: int, killed: int, tmp_path: Path, started: list[int]
) -> None:
    outermost = start_rank(launcher, folder=tmp_path, depth=depth, wait_seconds=PATIENCE_SECONDS)
    rank = int(wait_for(tmp_path / "rank"))
    chain = ancestors(rank, depth=depth)
    started += [rank, *chain]
    assert chain[-1] == outermost.pid
    os.kill(chain[killed], signal.SIGKILL)
    outermost.wait(PATIENCE_SECONDS)
    assert wait_for(tmp_path / "end") == "noticed"


@pytest.mark.parametrize("launcher", ["python", "srun", "environment"])
def test_other_launchers_are_not_watched(launcher: str, tmp_path: Path, started: list[int]) -> None:
    outermost = start_rank(launcher, folder=tmp_path, depth=1, wait_seconds=1.0)
    rank = int(wait_for(tmp_path / "rank"))
    started += [rank, outermost.pid]
    outermost.kill()
    outermost.wait(PATIENCE_SECONDS)
    assert wait_for(tmp_path / "end") == "unnoticed"


def test_a_launcher_that_lives_is_not_reported(tmp_path: Path) -> None:
    outermost = start_rank("torchrun", folder=tmp_path, depth=1, wait_seconds=1.0)
    assert outermost.wait(PATIENCE_SECONDS) == 0
    assert wait_for(tmp_path / "end") == "unnoticed"


def test_no_thread_is_started_for_an_unwatched_launcher() -> None:
    before = threading.active_count()
    watch_launcher(find_launcher("python"), on_death=lambda: None)
    assert threading.active_count() == before


def test_ancestors_are_the_parents_nearest_first_and_end_at_init() -> None:
    assert parent_of(os.getpid()) == os.getppid()
    own = [os.getppid()] if os.getppid() > 1 else []  # an orphan's parent is init
    assert ancestors(os.getpid(), depth=1) == own
    chain = ancestors(os.getpid(), depth=100)
    assert chain == [*own, *ancestors(os.getppid(), depth=99)]
    assert 0 not in chain
    assert 1 not in chain
    assert ancestors(os.getpid(), depth=0) == []


def test_a_process_that_is_gone_has_no_parent() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert parent_of(process.pid) == 0


def test_a_process_name_with_brackets_and_spaces_does_not_confuse(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "60"])
    try:
        assert parent_of(process.pid) == os.getpid()
    finally:
        process.kill()
        process.wait()
