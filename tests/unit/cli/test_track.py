"""`dstrain track`: a run sent to trackers, again and again without doubling."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dstrain.cli.app import app
from dstrain.run_folder.layout import RunFolder
from dstrain.tracking.sender import only_sender
from tests.unit.cli.cli_cases import make_run
from tests.unit.tracking.tracking_cases import install_package

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def _own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(install_package(tmp_path)))
    monkeypatch.delitem(sys.modules, "own_trackers", raising=False)


def track(run: str, *options: str) -> Result:
    return RUNNER.invoke(app, ["track", run, *options], catch_exceptions=False)


def lines(run: str) -> list[list[object]]:
    paths = (RunFolder(Path(run)).trackers / "own").glob("*.jsonl")
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_a_finished_run_is_sent_once_however_often_it_is_asked(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", bleu=[12.0, 14.0])
    result = track(run, "--to", "own")
    assert (result.exit_code, result.stdout) == (0, "own: 3 points sent (file)\n")
    result = track(run, "--to", "own")
    assert (result.exit_code, result.stdout) == (0, "own: nothing was missing (file)\n")
    closed = ["closed", "finished"]
    parts = [line if line[0] == "closed" else line[:3] for line in lines(run)]
    assert parts == [["eval", 10, 0], ["eval", 20, 1], ["train", 35, 2], closed, closed]


def test_event_files_are_written_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    run = make_run(tmp_path / "run")
    for _ in range(2):
        result = track(run, "--to", "tensorboard")
        assert (result.exit_code, result.stdout) == (0, "tensorboard: 2 points sent (event files)\n")
    assert len(list(RunFolder(Path(run)).tensorboard.iterdir())) == 1


def test_the_help_says_what_is_sent_again() -> None:
    said = " ".join(RUNNER.invoke(app, ["track", "--help"], env={"COLUMNS": "200"}).stdout.split())
    assert "to trackers, as far as they lack them; TensorBoard's file is written again." in said


def test_without_a_name_the_recipes_trackers_are_meant(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "logging={tensorboard: false, trackers: {own: {}}}")
    assert track(run).stdout == "own: 2 points sent (file)\n"
    run = make_run(tmp_path / "none", "logging.tensorboard=false")
    result = track(run)
    assert result.exit_code == 1
    assert "its recipe names no tracker: give one with --to" in result.stderr


def test_a_server_that_only_the_run_folder_names_is_not_asked(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "logging.trackers.own.uri=http://stranger.invalid")
    result = track(run, "--to", "own")
    assert result.exit_code == 1
    assert (
        "names the server http://stranger.invalid: to send it there, add --uri http://stranger.invalid" in result.stderr
    )
    assert not (Path(run) / "trackers").exists()


def test_a_server_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    result = track(run, "--to", "own", "--uri", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert result.stderr.startswith("own: URLError: ")
    assert result.stderr.count("\n") == 1
    assert "the same command sends what is missing" in result.stderr


def test_what_can_be_sent_is_sent_although_another_tracker_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    result = track(run, "--to", "nobody", "--to", "own")
    assert result.exit_code == 1
    assert result.stdout == "own: 2 points sent (file)\n"
    assert "there is no tracker `nobody`: take one of tensorboard, wandb, mlflow" in result.stderr


def test_a_run_that_another_process_is_sending_is_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with only_sender(RunFolder(Path(run)), name="own"):
        result = track(run, "--to", "own")
    assert result.exit_code == 1
    assert "another process is sending this run to own" in result.stderr


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_what_is_no_run_folder_is_refused(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "x")
    result = track(str(tmp_path / "x"), "--to", "own")
    assert result.exit_code == 1
    assert "x: no such folder" in result.stderr or "is not a run folder" in result.stderr


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    (Path(run) / "trackers").symlink_to(tmp_path / "elsewhere")
    result = track(run, "--to", "own")
    assert result.exit_code == 1
    assert "is a link" in result.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []
