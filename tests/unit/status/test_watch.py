"""A run that is watched: until when, and what is shown."""

from dataclasses import replace
from pathlib import Path

import pytest

from dstrain.run_folder.rows import TrainRow
from dstrain.status.inspect import RunStatus, ScoreAtStep
from dstrain.status.judge import MEANINGS, ONGOING, State
from dstrain.status.watch import changes_of, describe_change, describe_watched, is_over, watch
from tests.unit.status.status_cases import look, write_row


@pytest.mark.parametrize("state", MEANINGS)
def test_a_run_is_over_once_it_neither_runs_nor_comes_again(state: State, run: Path) -> None:
    status = replace(look(run), state=state)
    assert is_over(status) is (state not in ONGOING)
    assert not is_over(replace(status, comes_again="1234"))


def test_a_run_is_looked_at_every_so_often_until_it_is_over(run: Path) -> None:
    running = look(run)
    states = iter([running, replace(running, step=121), replace(running, state="finished"), running])
    slept: list[float] = []
    found = list(watch(lambda: next(states), seconds=5.0, sleep=slept.append))
    assert [(status.state, status.step) for status in found] == [("running", 120), ("running", 121), ("finished", 120)]
    assert slept == [5.0, 5.0]


def test_a_shared_file_system_is_not_flooded(run: Path) -> None:
    running = look(run)
    states = iter([running, replace(running, state="killed")])
    slept: list[float] = []
    list(watch(lambda: next(states), seconds=0.0, sleep=slept.append))
    assert slept == [0.2]


def changed(status: RunStatus, **values: object) -> bool:
    return changes_of(replace(status, **values)) != changes_of(status)  # type: ignore[arg-type]


def test_time_alone_and_single_steps_are_no_change(run: Path) -> None:
    status = look(run)
    assert not changed(status, now=status.now + 60, step=121, eta_seconds=1.0)
    assert changed(status, state="silent")
    assert changed(status, last_loss=ScoreAtStep(150, "loss", 1.0))
    assert changed(status, best=ScoreAtStep(200, "bleu", 20.0))
    assert changed(status, checkpoint=None)


def test_a_line_says_how_far_the_run_is_how_good_and_what_is_saved(run: Path) -> None:
    write_row(run, TrainRow(120, 1.2, 1.75, elapsed_seconds=240.0, lease=1))
    status = replace(look(run), best=ScoreAtStep(100, "bleu", 12.5, 0.75))
    assert describe_change(status) == (
        f"{run}: running, step 120 of 1,000 (12.0%), 33 min 50 s left, loss 1.7500 at step 120, "
        "best bleu 12.5000 ± 0.7500 at step 100, saved at step 100"
    )


def test_a_message_is_one_line(run: Path) -> None:
    status = replace(look(run), state="failed", message="no such column\n  found x. And more", eta_seconds=None)
    assert describe_change(status).endswith("no such column found x")
    assert "\n" not in describe_change(status)


def test_a_terminal_is_told_how_to_leave(run: Path) -> None:
    assert describe_watched(look(run), seconds=2.0).endswith("\n\nevery 2 s; Ctrl-C ends this, and not the run")
