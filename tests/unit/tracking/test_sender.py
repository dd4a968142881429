"""A run folder and its tracker: each point once, whatever happens to either."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dstrain.errors import UserError
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.scores import ScoredTexts, Scores, write_scores
from dstrain.run_folder.tracked import read_tracked
from dstrain.tracking.sender import MOST_POINTS, Sender, TrackerBusy, only_sender, send_run
from dstrain.tracking.tracker import Place, Tracker, TrackerFailed
from tests.unit.tracking.tracking_cases import (
    Server,
    add_rows,
    evaluation,
    event,
    killed_and_resumed,
    make_run,
    memory,
    train,
)


def maker(server: Server, folder: RunFolder, **options: Any) -> Callable[[], Tracker]:
    return lambda: memory(server, **options)(Place(folder.trackers / "memory"))


def sender(server: Server, folder: RunFolder, **options: Any) -> Sender:
    return Sender(folder, name="memory", make_tracker=maker(server, folder, **options))


def send(server: Server, folder: RunFolder, **options: Any) -> int:
    return send_run(folder, name="memory", make_tracker=maker(server, folder, **options)).num_points


def test_a_run_that_was_killed_and_resumed_is_one_run_with_each_step_once(tmp_path: Path) -> None:
    server = Server()
    folder = make_run(tmp_path / "run", *(train(step) for step in range(1, 121)), evaluation(110))
    assert send(server, folder) == 121
    add_rows(folder, event("resume", 100, lease=2), *(train(step, lease=2) for step in range(101, 111)))
    assert send(server, folder) == 0
    add_rows(folder, *(train(step, lease=2) for step in range(111, 151)), evaluation(150, lease=2))
    assert send(server, folder) == 31
    assert server.steps == list(range(1, 151))
    assert [each.number for each in server.points] == list(range(152))
    assert [each.step for each in server.points if each.part == "eval"] == [110, 150]


def test_afterwards_a_run_with_repeated_steps_is_sent_in_full_once(tmp_path: Path) -> None:
    server, folder = Server(), killed_and_resumed(tmp_path / "run")
    assert send(server, folder) == 151  # the evaluation of step 110 was superseded
    assert send(server, folder) == 0
    assert server.steps == list(range(1, 151))
    assert server.statuses == ["interrupted", "interrupted"]


def test_a_line_that_is_being_written_is_left_for_the_next_look(tmp_path: Path) -> None:
    server, folder = Server(), make_run(tmp_path / "run", train(1))
    whole = folder.metrics.read_text()
    folder.metrics.write_text(whole + '{"kind": "train", "step": 2, "epo')
    assert send(server, folder) == 1
    folder.metrics.write_text(whole)
    add_rows(folder, train(2))
    assert send(server, folder) == 1
    assert server.steps == [1, 2]


def test_an_evaluation_of_another_job_is_sent_when_it_arrives_at_its_own_step(tmp_path: Path) -> None:
    server = Server()
    due = {"kind": "due", "step": 2, "epoch": 0.5, "train_loss": 3.0, "lease": 1}
    folder = make_run(tmp_path / "run", train(1), train(2), due, train(3), train(4))
    assert send(server, folder) == 4
    write_scores(Scores(scores={"bleu": 12.0}), ScoredTexts([], [[]], [], []), folder=folder, step=2, lease=1)
    assert send(server, folder) == 1
    late = server.points[-1]
    assert (late.part, late.step, late.values["eval/bleu"], late.values["eval/train_loss"]) == ("eval", 2, 12.0, 3.0)


def test_the_recipe_goes_along_and_the_name_is_the_recipes_unless_another_is_given(tmp_path: Path) -> None:
    server, folder = Server(), make_run(tmp_path / "run", train(1))
    send(server, folder)
    (config,) = server.configs.values()
    assert (config["shown as"], config["training"]["batch_size"]) == ("ko-en-m2m", 16)
    send_run(folder, name="memory", make_tracker=maker(server, folder), run_name="mine")
    (config,) = server.configs.values()
    assert config["shown as"] == "mine"


def test_a_copy_is_shown_as_a_run_of_its_own(tmp_path: Path) -> None:
    server, folder = Server(), make_run(tmp_path / "run", train(1))
    send(server, folder)
    shutil.copytree(folder.path, tmp_path / "copy")
    copy = RunFolder(tmp_path / "copy")
    add_rows(copy, train(2))
    add_rows(folder, train(2, loss=9.0))
    assert (send(server, copy), send(server, folder)) == (2, 1)
    first, second = server.runs.values()
    assert [each.step for each in first] == [each.step for each in second] == [1, 2]


@pytest.mark.parametrize("late", [False, True])
def test_after_a_failure_what_is_unsure_is_sent_again_and_arrives_once(tmp_path: Path, late: bool) -> None:
    server, folder = Server(), make_run(tmp_path / "run", train(1), train(2))
    server.faults, server.late = [ConnectionError("no answer")], late
    following = sender(server, folder)
    with pytest.raises(ConnectionError, match="no answer"):
        following.update()
    add_rows(folder, train(3))
    assert following.update() == 3
    following.close()
    assert server.steps == [1, 2, 3]
    assert read_tracked(folder, name="memory").sent["memory"].unsure == ()


def test_another_process_knows_what_was_unsure_when_the_first_was_killed(tmp_path: Path) -> None:
    server, folder = Server(), make_run(tmp_path / "run", train(1), train(2))
    server.faults, server.late = [ConnectionError("killed")], True
    with pytest.raises(TrackerFailed, match="memory: ConnectionError: killed; the same command sends what is missing"):
        send(server, folder)
    add_rows(folder, train(3))
    send(server, folder)
    assert server.steps == [1, 2, 3]


def test_where_only_the_close_is_sure_everything_is_unsure_until_then(tmp_path: Path) -> None:
    server, folder = Server(), make_run(tmp_path / "run", train(1))
    following = sender(server, folder, is_sure=False)
    following.update()
    add_rows(folder, train(2))
    assert following.update() == 1
    sent = read_tracked(folder, name="memory").sent["memory"]
    assert (sent.train_step, sent.unsure) == (0, (("train", 1, 0), ("train", 2, 1)))
    following.close()
    sent = read_tracked(folder, name="memory").sent["memory"]
    assert (sent.train_step, sent.unsure, sent.next_number) == (2, (), 2)
    assert server.steps == [1, 2]


def test_what_the_destination_says_it_has_counts(tmp_path: Path) -> None:
    server, folder = Server(), make_run(tmp_path / "run", train(1), train(2), train(3))
    following = sender(server, folder, is_sure=False)
    following.update()  # and is killed
    (points,) = server.runs.values()
    del points[2:]
    server.num_there = 2
    assert send(server, folder, is_sure=False) == 1
    assert server.steps == [1, 2, 3]
    assert [each.number for each in server.points] == [0, 1, 2]


def test_another_destination_is_sent_everything_under_the_same_id(tmp_path: Path) -> None:
    offline, online = Server(), Server()
    folder = make_run(tmp_path / "run", train(1), train(2))
    assert send(offline, folder, destination="offline") == 2
    assert send(online, folder, destination="https://host") == 2
    assert offline.runs == online.runs
    assert send(offline, folder, destination="offline") == 0


def test_many_points_are_sent_in_batches(tmp_path: Path) -> None:
    server, folder = Server(), make_run(tmp_path / "run", *(train(step) for step in range(1, 2 * MOST_POINTS + 2)))
    assert send(server, folder) == 2 * MOST_POINTS + 1
    assert server.steps == list(range(1, 2 * MOST_POINTS + 2))


def test_while_one_sends_another_is_refused(tmp_path: Path) -> None:
    server, folder = Server(), make_run(tmp_path / "run", train(1))
    with only_sender(folder, name="memory"):
        with pytest.raises(TrackerBusy, match="another process is sending this run to memory"):
            send(server, folder)
        with only_sender(folder, name="other"):
            pass
    assert send(server, folder) == 1


def test_the_lock_follows_no_link(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", train(1))
    folder.trackers.mkdir()
    folder.tracker_lock("memory").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="memory"), only_sender(folder, name="memory"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_damaged_run_folder_is_said_by_its_file(tmp_path: Path) -> None:
    server, folder = Server(), make_run(tmp_path / "run", train(1))
    with folder.metrics.open("a") as file:
        file.write("not JSON\n{}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl:3: not JSON"):
        send(server, folder)
