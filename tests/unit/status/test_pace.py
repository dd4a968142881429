"""How fast a run trains, and how long the rest takes."""

from dstrain.run_folder.rows import TrainRow
from dstrain.status.pace import Pace, measure_pace, remaining_seconds


def test_pace_needs_a_row_and_takes_the_recent_ones() -> None:
    slow = [TrainRow(step, 0.0, 1.0, elapsed_seconds=step * 9.0) for step in range(10, 110, 10)]
    fast = [TrainRow(100 + step, 0.0, 1.0, elapsed_seconds=900 + step * 2.0) for step in range(10, 310, 10)]
    assert measure_pace([], []) is None
    assert measure_pace([TrainRow(5, 0.0, 1.0)], []) is None
    assert measure_pace(slow[:1], []) == Pace(9.0)
    assert measure_pace(slow + fast, []) == Pace(2.0)
    assert remaining_seconds(Pace(2.0, 30.0, 100.0), step=150, total_steps=300) == 150 * 2 + 2 * 30
    assert remaining_seconds(Pace(2.0, 30.0, 100.0), step=300, total_steps=300) == 0
