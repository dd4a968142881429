"""Event files, read back by TensorBoard's own reader."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from dstrain.config.machine import Tracker as TrackerSettings
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.scores import ScoredTexts, Scores, write_scores
from dstrain.tracking.backends import make_tracker
from dstrain.tracking.sender import Sender, send_run
from dstrain.tracking.tensorboard import TensorBoard
from dstrain.tracking.tracker import Place, Point, TrackedRun, Tracker
from tests.unit.tracking.tracking_cases import (
    START_SECONDS,
    add_rows,
    evaluation,
    event,
    killed_and_resumed,
    make_run,
    train,
)

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard")


def read(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag, as TensorBoard shows them."""
    events = accumulator.EventAccumulator(str(path), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def make(folder: RunFolder) -> Tracker:
    return make_tracker("tensorboard", folder=folder, settings=TrackerSettings())


def sender(folder: RunFolder) -> Sender:
    return Sender(folder, name="tensorboard", make_tracker=partial(make, folder))


def send(folder: RunFolder) -> int:
    return send_run(folder, name="tensorboard", make_tracker=partial(make, folder)).num_points


def files(folder: RunFolder) -> list[Path]:
    return sorted(folder.tensorboard.iterdir())


def test_a_run_that_was_killed_and_resumed_shows_each_step_once_with_its_last_value(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", *(train(step) for step in range(1, 121)))
    sender(folder).update()  # and is killed
    add_rows(folder, event("resume", 100, lease=2), *(train(step, lease=2, loss=5.0) for step in range(101, 151)))
    send(folder)
    losses = read(folder.tensorboard)["train/loss"]
    assert [step for step, _ in losses] == list(range(1, 151))
    assert [value for _, value in losses[100:]] == [5.0] * 50
    assert len(files(folder)) == 1


def test_every_number_is_shown_and_sending_again_changes_nothing(tmp_path: Path) -> None:
    groups = {"flores": {"bleu": 20.0}}
    scored = evaluation(2, train_loss=3.0, scores={"bleu": 12.0, "flores/bleu": 20.0}, groups=groups)
    folder = make_run(tmp_path / "run", train(1, grad_norm=0.5), train(2, grad_norm=float("inf")), scored)
    assert send(folder) == 3
    shown = read(folder.tensorboard)
    assert shown["eval/bleu"] == [(2, 12.0)]
    assert shown["eval/flores/bleu"] == [(2, 20.0)]
    assert shown["eval/train_loss"] == [(2, 3.0)]
    assert shown["train/grad_norm"] == [(1, 0.5), (2, float("inf"))]
    assert {"train/loss", "train/target_tokens", "train/skipped_steps", "train/elapsed_seconds"} <= shown.keys()
    assert send(folder) == 3
    assert read(folder.tensorboard) == shown


def test_an_evaluation_that_arrives_after_later_ones_takes_its_place_among_them(tmp_path: Path) -> None:
    due = {"kind": "due", "step": 2, "epoch": 0.5, "train_loss": None, "lease": 1}
    folder = make_run(tmp_path / "run", train(1), train(2), due, train(3), evaluation(4, scores={"bleu": 40.0}))
    following = sender(folder)
    following.update()
    write_scores(Scores(scores={"bleu": 20.0}), ScoredTexts([], [[]], [], []), folder=folder, step=2, lease=1)
    following.update()
    add_rows(folder, train(5))
    following.update()
    following.close()
    shown = read(folder.tensorboard)
    assert shown["eval/bleu"] == [(2, 20.0), (4, 40.0)]
    assert [step for step, _ in shown["train/loss"]] == [1, 2, 3, 5]


def test_a_file_that_a_kill_left_beside_the_new_one_is_not_shown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", *(train(step) for step in range(1, 6)))
    send(folder)
    (old,) = files(folder)
    content = old.read_bytes()
    send(folder)
    (new,) = files(folder)
    new.rename(new.with_name(f"events.out.tfevents.{2**33}.later"))
    old.write_bytes(content)
    assert len(files(folder)) == 2
    assert [step for step, _ in read(folder.tensorboard)["train/loss"]] == [1, 2, 3, 4, 5]


def test_points_have_the_time_of_training_and_not_of_sending(tmp_path: Path) -> None:
    folder = killed_and_resumed(tmp_path / "run")
    send(folder)
    events = accumulator.EventAccumulator(str(folder.tensorboard), size_guidance={"scalars": 0})
    events.Reload()
    times = [each.wall_time - START_SECONDS for each in events.Scalars("train/loss")]
    assert times == [2.0 * step for step in range(1, 151)]


def test_what_others_put_beside_the_event_files_stays(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", train(1))
    folder.tensorboard.mkdir()
    (folder.tensorboard / "notes.txt").write_text("mine")
    send(folder)
    send(folder)
    assert [path.name for path in files(folder) if "tfevents" not in path.name] == ["notes.txt"]


def test_writing_needs_no_torch(tmp_path: Path) -> None:
    code = f"""
import pathlib, sys
from dstrain.tracking.tensorboard import TensorBoard
from dstrain.tracking.tracker import Place, Point, TrackedRun
tracker = TensorBoard(Place(pathlib.Path({str(tmp_path / "events")!r})))
tracker.open(TrackedRun("x", "x", {{}}))
tracker.send([Point("train", 1, {{"train/loss": 1.0}})])
tracker.close("finished")
print([name for name in ("torch", "tensorflow", "transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert read(tmp_path / "events")["train/loss"] == [(1, 1.0)]


def test_it_always_begins_again(tmp_path: Path) -> None:
    tracker = TensorBoard(Place(tmp_path))
    assert tracker.open(TrackedRun("x", "x", {})) == 0
    tracker.send([Point("train", 2, {"train/loss": 2.0}), Point("train", 1, {"train/loss": 1.0})])
    tracker.close("finished")
    assert read(tmp_path)["train/loss"] == [(1, 1.0), (2, 2.0)]
