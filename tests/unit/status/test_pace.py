"""How fast a run trains, and how long the rest takes."""

import math

import pytest

from dstrain.run_folder.rows import EvalRow, TrainRow
from dstrain.status.pace import Pace, measure_pace, remaining_seconds, spent_seconds


def test_the_pace_needs_one_row_and_is_that_of_the_recent_ones() -> None:
    slow = [TrainRow(step, 0.0, 1.0, elapsed_seconds=step * 9.0) for step in range(10, 110, 10)]
    fast = [TrainRow(100 + step, 0.0, 1.0, elapsed_seconds=900 + step * 2.0) for step in range(10, 310, 10)]
    assert measure_pace([], []) is None
    assert measure_pace([TrainRow(5, 0.0, 1.0)], []) is None
    assert measure_pace(slow[:1], []) == Pace(9.0)
    assert measure_pace(slow + fast, []) == Pace(2.0)
    assert remaining_seconds(Pace(2.0, 30.0, 100.0), step=150, total_steps=300) == 150 * 2 + 2 * 30
    assert remaining_seconds(Pace(2.0, 30.0, 100.0), step=300, total_steps=300) == 0


def test_evaluations_are_measured_by_their_recent_mean_and_distance() -> None:
    train = [TrainRow(100, 0.0, 1.0, elapsed_seconds=200.0)]
    evaluations = [
        EvalRow(step=step, epoch=0.0, scores={}, seconds=seconds)
        for step, seconds in ((40, 10.0), (80, 20.0), (120, 30.0))
    ]
    assert measure_pace(train, evaluations) == Pace(2.0, 20.0, 40.0)
    assert measure_pace(train, evaluations[:1]) == Pace(2.0, 10.0, 40.0)
    assert measure_pace(train, [EvalRow(step=40, epoch=0.0, scores={}, seconds=math.nan)]) == Pace(2.0)


def test_the_time_of_past_steps_counts_the_evaluations_after_them() -> None:
    evaluations = [EvalRow(step=step, epoch=0.0, scores={}) for step in (100, 150, 200)]
    assert spent_seconds(Pace(2.0, 30.0, 50.0), evaluations, since_step=100, step=160) == 60 * 2 + 30


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0, 0.0])
def test_a_row_with_an_impossible_time_does_not_count(seconds: float) -> None:
    assert measure_pace([TrainRow(100, 0.0, 1.0, elapsed_seconds=seconds)], []) is None
