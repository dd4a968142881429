"""Trackers of real runs: each step once over a kill, and a server that does not answer changes nothing."""

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dstrain.cluster.environment import ProcessInfo
from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.config.schema import RunConfig
from dstrain.run_folder.layout import RunFolder
from tests.distributed.ranks import start_ranks
from tests.system.runs import _train, build_run, read_rows
from tests.unit.tracking.tracking_cases import install_package, python_path

STOP_AFTER = 6


def train(config: RunConfig, *, site: Path, world_size: int = 1, stop_after: int | None = None) -> list[Any]:
    """For each rank its exit code, the programs that it started, and the ports that it has connected to."""
    values = config.model_dump(mode="json")
    return start_ranks(_train_watched, values, str(site), stop_after, world_size=world_size)


def _train_watched(place: ProcessInfo, values: dict[str, Any], site: str, stop_after: int | None) -> Any:
    os.environ["PYTHONPATH"] = python_path(Path(site))
    started: list[list[str]] = []
    ports: list[int] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen":
            started.append([str(word) for word in arguments[1]])
        elif event == "socket.connect" and isinstance(arguments[1], tuple):
            ports.append(arguments[1][1])

    sys.addaudithook(watch)
    code = _train(place, values, stop_after, (), None)
    return code, [words for words in started if "dstrain.tracking.follow" in words], ports


def read_own(config: RunConfig) -> list[list[Any]]:
    """The lines of the tracker `own`, which keeps one file for each id."""
    (path,) = (RunFolder(Path(config.run_dir)).trackers / "own").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_that_was_stopped_and_resumed_shows_each_step_and_each_evaluation_once(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard")
    logging = {"every_steps": 1, "tensorboard": True, "trackers": {"own": {}}}
    config = build_run(tmp_path, logging=logging)
    site = install_package(tmp_path)
    first = train(config, site=site, world_size=2, stop_after=STOP_AFTER)
    assert [code for code, _, _ in first] == [EXIT_PREEMPTED] * 2
    assert [len(started) for _, started, _ in first] == [2, 0]
    assert [code for code, _, _ in train(config, site=site, world_size=2)] == [0, 0]
    shown = reader.EventAccumulator(str(RunFolder(Path(config.run_dir)).tensorboard), size_guidance={"scalars": 0})
    shown.Reload()
    losses = {row["step"]: row["loss"] for row in read_rows(config, kind="train")}
    assert [each.step for each in shown.Scalars("train/loss")] == list(range(1, 13)) == list(losses)
    assert [each.value for each in shown.Scalars("train/loss")] == pytest.approx(list(losses.values()))
    scores = {row["step"]: row["scores"]["bleu"] for row in read_rows(config, kind="eval")}
    assert [each.step for each in shown.Scalars("eval/bleu")] == list(scores) == [5, 10, 12]
    assert {"eval/dev/bleu", "eval/chrf", "eval/loss", "train/grad_norm"} <= set(shown.Tags()["scalars"])
    lines = read_own(config)
    sent = [line for line in lines if line[0] != "closed"]
    assert sorted(line[1] for line in sent if line[0] == "train") == list(range(1, 13))
    assert sorted(line[1] for line in sent if line[0] == "eval") == [5, 10, 12]
    assert [line[2] for line in sent] == list(range(15))
    assert [line for line in lines if line[0] == "closed"] == [["closed", "stopped"], ["closed", "finished"]]


@contextmanager
def silent_server() -> Iterator[tuple[int, threading.Event]]:
    """A port that takes connections and never answers; the event says that somebody has connected."""
    connected = threading.Event()
    kept: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                kept.append(server.accept()[0])
            except OSError:
                return
            connected.set()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], connected
        server.shutdown(socket.SHUT_RDWR)


@contextmanager
def closed_port() -> Iterator[tuple[int, threading.Event]]:
    """A port at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1], threading.Event()


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """The losses of the run without any tracker."""
    folder = tmp_path_factory.mktemp("untracked")
    config = build_run(folder)
    assert train(config, site=folder) == [(0, [], [])]
    return {row["step"]: row["loss"] for row in read_rows(config, kind="train")}


@pytest.mark.parametrize("server", [silent_server, closed_port])
def test_a_server_that_does_not_answer_changes_nothing_in_the_run(
    server: Any, tmp_path: Path, untracked: dict[int, float]
) -> None:
    site = install_package(tmp_path)
    with server() as (port, connected):
        trackers = {"own": {"uri": f"http://127.0.0.1:{port}"}}
        config = build_run(tmp_path, logging={"every_steps": 1, "tensorboard": False, "trackers": trackers})
        ((code, started, ports),) = train(config, site=site)
        # the training itself has asked nobody: one program was started, once, and that program asked
        assert (code, len(started), ports) == (0, 1, [])
        assert connected.is_set() == (server is silent_server)
    assert {row["step"]: row["loss"] for row in read_rows(config, kind="train")} == untracked
    assert not (RunFolder(Path(config.run_dir)).trackers / "own").exists()
