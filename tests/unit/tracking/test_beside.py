"""Real processes beside a run: they send what the run writes, and never stop it or hold it up."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dstrain.cluster.processes import process_start
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.rows import append_row
from dstrain.run_folder.tracked import read_tracked
from dstrain.tracking.beside import END_SECONDS, Followers
from tests.unit.tracking.tracking_cases import add_rows, install_package, make_run, python_path, train


@pytest.fixture(autouse=True)
def _own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", python_path(install_package(tmp_path)))


def written(folder: RunFolder, *, name: str = "own") -> list[list[object]]:
    """The lines of the tracker `own`, or of another that writes as it does."""
    paths = (folder.trackers / name).glob("*.jsonl")
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def wait_for_hang(folder: RunFolder) -> list[int]:
    """The process of the tracker that hangs, and one that it has started."""
    path = folder.trackers / "hangs"
    while not (path.is_file() and path.read_text().endswith("\n")):
        time.sleep(0.01)
    return [int(pid) for pid in path.read_text().split()]


def test_rows_that_are_written_meanwhile_are_sent_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_run(tmp_path / "run", train(1))
    followers = Followers(["own"], run_dir=folder.path)
    add_rows(folder, train(2))
    append_row(folder.metrics, {"kind": "event", "event": "finish", "step": 2, "lease": 1})
    followers.close(seconds=END_SECONDS)
    assert [line[:3] for line in written(folder)] == [["train", 1, 0], ["train", 2, 1], ["closed", "finished"]]
    assert read_tracked(folder, name="own").sent["file"].train_step == 2
    assert caplog.messages == []


def test_a_tracker_that_hangs_is_ended_and_the_way_out_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_run(tmp_path / "run", train(1))
    followers = Followers(["hangs"], run_dir=folder.path)
    pids = wait_for_hang(folder)
    with caplog.at_level(logging.WARNING):
        followers.close(seconds=0.1)
    while any(process_start(pid) is not None for pid in pids):
        time.sleep(0.01)
    assert caplog.messages == [
        f"hangs has not received everything in time; to send the rest: dstrain track {folder.path} --to hangs"
    ]


def test_after_a_failure_it_is_tried_again_in_a_new_program(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "run", train(1))
    followers = Followers(["shy"], run_dir=folder.path)
    while "not yet" not in capfd.readouterr().err:
        time.sleep(0.01)
    add_rows(folder, train(2))
    followers.close(seconds=END_SECONDS)
    assert caplog.messages == []
    assert [line[:2] for line in written(folder, name="shy")] == [["train", 1], ["train", 2], ["closed", "interrupted"]]
    assert capfd.readouterr().err == ""


def test_a_server_that_cannot_be_reached_is_a_warning_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        folder = make_run(tmp_path / "run", train(1), logging={"trackers": {"own": {"uri": uri}}})
        with caplog.at_level(logging.WARNING):
            Followers(["own"], run_dir=folder.path).close(seconds=END_SECONDS)
    assert caplog.messages == [
        f"own could not be sent everything; to send the rest: dstrain track {folder.path} --to own"
    ]
    assert written(folder) == []


def test_signals_for_the_run_do_not_end_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", train(1))
    followers = Followers(["own"], run_dir=folder.path)
    (process,) = followers._processes.values()
    while not written(folder):
        time.sleep(0.01)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        process.send_signal(number)
    add_rows(folder, train(2))
    followers.close(seconds=END_SECONDS)
    assert [line[:2] for line in written(folder)] == [["train", 1], ["train", 2], ["closed", "interrupted"]]


def test_after_a_kill_of_the_run_the_last_rows_are_still_sent(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", train(1))
    code = f"""
import os, pathlib, signal, time
from dstrain.tracking.beside import Followers
from dstrain.run_folder.layout import RunFolder
from tests.unit.tracking.tracking_cases import add_rows, train
folder = RunFolder(pathlib.Path({str(folder.path)!r}))
Followers(["own"], run_dir=folder.path)
while not list((folder.trackers / "own").glob("*.jsonl")):
    time.sleep(0.01)
add_rows(folder, train(2))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False)
    assert done.returncode == -signal.SIGKILL
    while ["closed", "interrupted"] not in written(folder):
        time.sleep(0.01)
    assert [line[:2] for line in written(folder)][:2] == [["train", 1], ["train", 2]]


def test_a_process_that_cannot_be_started_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nowhere"))
    folder = make_run(tmp_path / "run", train(1))
    with caplog.at_level(logging.WARNING):
        Followers(["own"], run_dir=folder.path).close(seconds=END_SECONDS)
    (said,) = caplog.messages
    assert "own: its process cannot be started" in said
    assert f"dstrain track {folder.path} --to own" in said


def test_a_tracker_is_no_rank_and_sees_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    folder = make_run(tmp_path / "run", train(1))
    followers = Followers(["hangs"], run_dir=folder.path)
    pid, _ = wait_for_hang(folder)
    seen = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert b"CUDA_VISIBLE_DEVICES=" in seen
    assert [each for each in seen if each.startswith(b"RANK=")] == []
    assert os.getpgid(pid) == pid
    followers.close(seconds=0.0)
