"""W&B: its files of an offline run, read record by record, and servers that do not answer."""

import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dstrain.config.machine import Tracker as TrackerSettings
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.ownership import refuse_linked_folders
from dstrain.run_folder.scores import ScoredTexts, Scores, write_scores
from dstrain.run_folder.tracked import read_tracked
from dstrain.tracking.backends import make_tracker
from dstrain.tracking.beside import Followers
from dstrain.tracking.sender import Sender, send_run
from dstrain.tracking.tracker import Place
from dstrain.tracking.wandb import WandB
from tests.unit.tracking.tracking_cases import add_rows, evaluation, event, make_run, train
from tests.unit.tracking.wandb_server import wandb_server

ROOT = Path(__file__).parents[3]
BLOCK = 32768
"""The files are logs of LevelDB's format, after seven bytes of their own: blocks of records of at most a block."""


def make(folder: RunFolder, **settings: Any) -> WandB:
    tracker = make_tracker("wandb", folder=folder, settings=TrackerSettings(**settings))
    assert isinstance(tracker, WandB)
    return tracker


def send(folder: RunFolder, **settings: Any) -> int:
    run_name = settings.get("name")
    return send_run(folder, name="wandb", make_tracker=partial(make, folder, **settings), run_name=run_name).num_points


def read_log(path: Path) -> Iterator[bytes]:
    content, place, parts = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        _, size, kind = struct.unpack_from("<IHB", content, place)
        parts += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def read_offline(folder: RunFolder) -> tuple[list[dict[str, Any]], list[Any]]:
    """The points and the introductions of all offline runs, in the order of their folders."""
    from wandb.proto.wandb_internal_pb2 import Record

    rows, runs = [], []
    for path in sorted((folder.trackers / "wandb" / "wandb").glob("offline-run-*/*.wandb")):
        for content in read_log(path):
            record = Record.FromString(content)
            if record.HasField("history"):
                values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                rows.append(values | {"_step": record.history.step.num})
            elif record.HasField("run"):
                runs.append(record.run)
    return rows, runs


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs wandb: pip install 'dstrain[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)


@pytest.mark.usefixtures("_offline")
def test_a_killed_and_resumed_run_has_one_id_and_each_step_once(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", *(train(step) for step in range(1, 121)), evaluation(110))
    assert send(folder, project="p", name="mine") == 121
    add_rows(folder, event("resume", 100, lease=2), *(train(step, lease=2) for step in range(101, 151)))
    assert send(folder, project="p", name="mine") == 30
    assert send(folder, project="p", name="mine") == 0
    rows, runs = read_offline(folder)
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, 151))
    assert [row["step"] for row in rows if "eval/bleu" in row] == [110]
    assert [row["_step"] for row in rows] == list(range(151))
    introduced = {(run.run_id, run.project, run.display_name) for run in runs}
    assert introduced == {(read_tracked(folder, name="wandb").run_id, "p", "mine")}
    config = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert config["training"]["batch_size"] == 16


@pytest.mark.usefixtures("_offline")
def test_a_score_that_arrives_late_stands_at_its_own_step_and_not_finite_numbers_are_kept(tmp_path: Path) -> None:
    due = {"kind": "due", "step": 2, "epoch": 0.5, "train_loss": None, "lease": 1}
    folder = make_run(tmp_path / "run", train(1), train(2), due, train(3, loss=float("nan")))
    following = Sender(folder, name="wandb", make_tracker=partial(make, folder))
    following.update()
    assert read_tracked(folder, name="wandb").sent["offline"].train_step == 0  # sure at the end alone
    write_scores(Scores(scores={"bleu": 20.0}), ScoredTexts([], [[]], [], []), folder=folder, step=2, lease=1)
    following.update()
    following.close()
    rows, _ = read_offline(folder)
    assert [(row["step"], row["_step"]) for row in rows] == [(1, 0), (2, 1), (3, 2), (2, 3)]
    assert rows[3]["eval/bleu"] == 20.0
    assert rows[2]["train/loss"] != rows[2]["train/loss"]
    assert read_tracked(folder, name="wandb").sent["offline"].train_step == 3


@pytest.mark.usefixtures("_offline")
def test_after_a_kill_what_was_unsure_has_the_numbers_by_which_the_server_drops_it(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", train(1), train(2))
    tracker = make(folder)
    Sender(folder, name="wandb", make_tracker=lambda: tracker).update()
    tracker.close("interrupted")  # its own process continues to write; what was sent is not noted as there
    add_rows(folder, train(3))
    assert send(folder) == 3
    rows, _ = read_offline(folder)
    assert [(row["step"], row["_step"]) for row in rows] == [(1, 0), (2, 1), (1, 0), (2, 1), (3, 2)]


@pytest.mark.usefixtures("_offline")
def test_nothing_but_the_run_is_recorded(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", train(1))
    send(folder)
    files = [path for path in folder.trackers.rglob("files/*") if path.stat().st_size]
    assert [path.name for path in files] == []


@pytest.mark.usefixtures("_offline")
def test_no_link_is_left_that_the_next_start_would_refuse(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", train(1))
    send(folder)
    assert [path for path in folder.path.rglob("*") if path.is_symlink() and path.is_dir()] == []
    refuse_linked_folders(folder)


SENDS_AND_IS_KILLED = """
import os, pathlib, signal, sys, time
from dstrain.run_folder.layout import RunFolder
from tests.unit.tracking.test_wandb import make
from dstrain.tracking.sender import Sender
folder = RunFolder(pathlib.Path(sys.argv[1]))
Sender(folder, name="wandb", make_tracker=lambda: make(folder, project="p", uri=sys.argv[2])).update()
print("sent", flush=True)
sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("arrived", [True, False])
def test_online_a_run_that_was_killed_while_it_sent_goes_on_with_each_step_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    pytest.importorskip("wandb", reason="needs wandb: pip install 'dstrain[wandb]'")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    folder = make_run(tmp_path / "run", *(train(step) for step in range(1, 13)), evaluation(11))

    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    def track(uri: str) -> str:
        words = ("-m", "dstrain", "track", str(folder.path), "--to", "wandb", "--project", "p", "--uri", uri)
        said, _ = start(*words).communicate()
        return said.split(" (")[0]

    with wandb_server() as server:
        assert track(server.uri) == "wandb: 13 points sent"
        add_rows(folder, event("resume", 10, lease=2), *(train(step, lease=2) for step in range(11, 16)))
        killed = start("-c", SENDS_AND_IS_KILLED, str(folder.path), server.uri)
        assert killed.stdout is not None
        assert killed.stdout.readline() == "sent\n"
        while arrived and len(server.rows) < 16:
            time.sleep(0.1)
        killed.communicate("")
        add_rows(folder, train(16, lease=2), evaluation(16, lease=2))
        assert track(server.uri).startswith("wandb: ")
        assert track(server.uri) == "wandb: nothing was missing"
        rows = server.rows
    assert [row["_step"] for row in rows] == list(range(18))
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(1, 17))
    assert [row["step"] for row in rows if "eval/bleu" in row] == [11, 16]


@pytest.mark.parametrize("listens", [True, False])
def test_a_server_that_does_not_answer_ends_with_the_command_that_sends_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, listens: bool
) -> None:
    pytest.importorskip("wandb", reason="needs wandb: pip install 'dstrain[wandb]'")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen()
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        trackers = {"wandb": {"uri": uri, "project": "p"}}
        folder = make_run(tmp_path / "run", train(1), logging={"trackers": trackers})
        followers = Followers(["wandb"], run_dir=folder.path)
        (process,) = followers._processes.values()
        followers.close(seconds=8.0)
    assert process.poll() is not None
    assert f"dstrain track {folder.path} --to wandb" in caplog.text
    sent = read_tracked(folder, name="wandb").sent
    assert {name: each.train_step for name, each in sent.items()} in ({}, {f"{uri} p": 0})


def test_another_server_team_or_project_is_another_destination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    assert WandB(Place(tmp_path)).destination == "https://api.wandb.ai"
    assert WandB(Place(tmp_path, "p", "https://own")).destination == "https://own p"
    monkeypatch.setenv("WANDB_ENTITY", "team")
    monkeypatch.setenv("WANDB_PROJECT", "other")
    assert WandB(Place(tmp_path)).destination == "https://api.wandb.ai team other"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert WandB(Place(tmp_path)).destination == "offline"
