"""MLflow on a database of its own, read back by its client; and names that it refuses."""

import os
import shutil
import socket
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from dstrain.config.machine import Tracker as TrackerSettings
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.scores import ScoredTexts, Scores, write_scores
from dstrain.run_folder.tracked import read_tracked
from dstrain.tracking.backends import make_tracker
from dstrain.tracking.beside import Followers
from dstrain.tracking.mlflow import MOST_METRICS, MOST_NAME, RUN_ID, MLflow, flatten, plain_name
from dstrain.tracking.sender import Sender, send_run
from dstrain.tracking.tracker import Place, Point, TrackedRun
from tests.unit.tracking.tracking_cases import START_SECONDS, add_rows, evaluation, event, make_run, train

needs_database = pytest.mark.skipif(
    find_spec("mlflow") is None or find_spec("sqlalchemy") is None,
    reason="needs a database of MLflow: pip install mlflow",
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, which takes MLflow ten seconds to make."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(tmp_path: Path, database: Path) -> str:
    return f"sqlite:///{shutil.copy(database, tmp_path)}"


def make(folder: RunFolder, uri: str) -> MLflow:
    tracker = make_tracker("mlflow", folder=folder, settings=TrackerSettings(project="p", uri=uri))
    assert isinstance(tracker, MLflow)
    return tracker


def send(folder: RunFolder, uri: str, **options: Any) -> int:
    return send_run(folder, name="mlflow", make_tracker=partial(make, folder, uri), **options).num_points


def read_runs(uri: str) -> tuple[Any, list[Any]]:
    """A client, and the runs of the experiment."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("p")
    return client, list(client.search_runs([experiment.experiment_id]))


def steps(uri: str, name: str) -> list[int]:
    client, (run,) = read_runs(uri)
    return [metric.step for metric in client.get_metric_history(run.info.run_id, name)]


@needs_database
def test_a_killed_and_resumed_run_is_one_run_with_each_step_once(tmp_path: Path, uri: str) -> None:
    folder = make_run(tmp_path / "run", *(train(step) for step in range(1, 121)), evaluation(110))
    assert send(folder, uri, run_name="mine") == 121
    add_rows(folder, event("resume", 100, lease=2), *(train(step, lease=2) for step in range(101, 151)))
    assert send(folder, uri) == 30
    assert send(folder, uri) == 0
    assert sorted(steps(uri, "train/loss")) == list(range(1, 151))
    assert steps(uri, "eval/bleu") == [110]
    _, (run,) = read_runs(uri)
    assert run.info.run_name == "mine"
    assert run.data.tags[RUN_ID] == read_tracked(folder, name="mlflow").run_id
    assert run.data.params["training.batch_size"] == "16"
    assert run.info.status == "RUNNING"
    add_rows(folder, event("finish", 150, lease=2))
    send(folder, uri)
    _, (run,) = read_runs(uri)
    assert run.info.status == "FINISHED"


@needs_database
@pytest.mark.parametrize("arrives", [0, 7, 20])
def test_after_a_kill_in_the_middle_of_sending_each_step_is_there_once(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch, arrives: int
) -> None:
    folder = make_run(tmp_path / "run", *(train(step) for step in range(1, 21)))
    tracker = make(folder, uri)
    whole = tracker.send

    def send_some(points: list[Point]) -> None:
        whole(points[:arrives])
        raise ConnectionError("killed")

    monkeypatch.setattr(tracker, "send", send_some)
    with pytest.raises(ConnectionError):
        Sender(folder, name="mlflow", make_tracker=lambda: tracker).update()
    add_rows(folder, train(21))
    assert send(folder, uri) == 21
    assert sorted(steps(uri, "train/loss")) == list(range(1, 22))


@needs_database
def test_a_score_that_arrives_late_stands_at_its_own_step_and_time(tmp_path: Path, uri: str) -> None:
    due = {"kind": "due", "step": 2, "epoch": 0.5, "train_loss": None, "lease": 1}
    folder = make_run(tmp_path / "run", train(1), train(2), due, train(3, loss=float("nan")))
    send(folder, uri)
    groups = {"a > b": {"bleu": 1.0}, "a < b": {"bleu": 2.0}}
    scores = Scores(scores={"bleu": 20.0}, groups=groups)
    write_scores(scores, ScoredTexts([], [[]], [], []), folder=folder, step=2, lease=1)
    assert send(folder, uri) == 1
    client, (run,) = read_runs(uri)
    (late,) = client.get_metric_history(run.info.run_id, "eval/bleu")
    assert (late.step, late.value, late.timestamp) == (2, 20.0, 1000 * (START_SECONDS + 4.0))
    assert [run.data.metrics[plain_name(f"eval/{name}/bleu")] for name in groups] == [1.0, 2.0]
    assert steps(uri, "train/loss") == [1, 2, 3]


@needs_database
def test_a_run_that_was_deleted_there_is_sent_again(tmp_path: Path, uri: str) -> None:
    folder = make_run(tmp_path / "run", train(1), train(2))
    send(folder, uri)
    client, (run,) = read_runs(uri)
    client.delete_run(run.info.run_id)
    assert send(folder, uri) == 2
    assert steps(uri, "train/loss") == [1, 2]


@needs_database
def test_a_point_with_more_numbers_than_a_call_may_have_is_split(tmp_path: Path, uri: str) -> None:
    groups = {f"g{number}": {"bleu": float(number)} for number in range(MOST_METRICS + 5)}
    folder = make_run(tmp_path / "run", evaluation(1, groups=groups))
    send(folder, uri)
    assert steps(uri, f"eval/g{MOST_METRICS + 4}/bleu") == [1]
    assert steps(uri, "eval/g0/bleu") == [1]


@needs_database
def test_a_copy_is_another_run(tmp_path: Path, uri: str) -> None:
    first, second = (MLflow(Place(tmp_path, "p", uri)) for _ in range(2))
    assert first.open(TrackedRun("a1", "x", {"a": 1})) == 0
    assert second.open(TrackedRun("b2", "x", {"a": 1})) == 0
    assert first.open(TrackedRun("a1", "x", {"a": 2})) is None
    _, runs = read_runs(uri)
    assert {run.data.tags[RUN_ID] for run in runs} == {"a1", "b2"}
    assert {run.data.params["a"] for run in runs} == {"1"}


@pytest.mark.parametrize("listens", [True, False])
def test_a_server_that_does_not_answer_ends_with_the_command_that_sends_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, listens: bool
) -> None:
    pytest.importorskip("mlflow", reason="needs mlflow: pip install 'dstrain[mlflow]'")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        trackers = {"mlflow": {"uri": f"http://{host}", "project": "p"}}
        folder = make_run(tmp_path / "run", train(1), logging={"trackers": trackers})
        Followers(["mlflow"], run_dir=folder.path).close(seconds=10.0)
    assert f"dstrain track {folder.path} --to mlflow" in caplog.text
    assert {name: each.train_step for name, each in read_tracked(folder, name="mlflow").sent.items()} in (
        {},
        {f"http://{host} p": 0},
    )


@pytest.mark.parametrize(
    "name", ["eval/flores/bleu", "eval/날짜/bleu", "eval/ko-en: a b.c", "train/loss", "x" * MOST_NAME]
)
def test_a_name_that_is_accepted_stays(name: str) -> None:
    assert plain_name(name) == name


def test_names_that_are_refused_become_plain_and_stay_different() -> None:
    names = ["eval/a > b/bleu", "eval/a < b/bleu", "eval/a?b", "x" * (MOST_NAME + 1), "x" * (MOST_NAME + 2)]
    plain = [plain_name(name) for name in names]
    assert len(set(plain)) == len(names)
    assert plain[0].startswith("eval/a _ b/bleu-")
    assert max(map(len, plain)) <= MOST_NAME


def test_the_recipe_becomes_dotted_keys() -> None:
    values = {"a": {"b": 1, "c": {"d": None}}, "e": [1, {"f": 2}], "g": {}}
    assert list(flatten(values)) == [("a.b", "1"), ("a.c.d", "None"), ("e", "[1, {'f': 2}]"), ("g", "{}")]


def test_the_destination_names_server_and_experiment_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    assert MLflow(Place(tmp_path)).destination == "default Default"
    assert MLflow(Place(tmp_path, "p", "sqlite:///x.db")).destination == "sqlite:///x.db p"
    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_URI", "https://me:secret@host:5000/path")
    monkeypatch.setitem(os.environ, "MLFLOW_EXPERIMENT_NAME", "e")
    assert MLflow(Place(tmp_path)).destination == "https://host:5000/path e"
