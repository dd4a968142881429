"""How fast a run trains according to its rows, and how long the remaining steps will take. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dstrain.run_folder.rows import EvalRow, TrainRow

RECENT_ROWS = 20
"""Logging intervals that define the current speed: the first steps, which compile and warm up, would distort it."""
RECENT_EVALUATIONS = 5
"""Evaluations that define how long one takes and how many steps are between them."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The current speed of a run."""

    step_seconds: float
    """Seconds per optimizer step, including the wait for data, without evaluations and saves."""
    evaluation_seconds: float = 0.0
    """Seconds per evaluation."""
    evaluation_every: float | None = None
    """Steps between evaluations; None before the first."""


def measure_pace(train_rows: Sequence[TrainRow], eval_rows: Sequence[EvalRow]) -> Pace | None:
    """The current speed, None before the first row with a time. Rows must be in order, and none superseded."""
    timed = [(row.step, row.elapsed_seconds) for row in train_rows if _is_time(row.elapsed_seconds)]
    recent = [(step, seconds) for step, seconds in timed[-RECENT_ROWS - 1 :] if seconds is not None]
    if not recent:
        return None
    # trained seconds count from step 0, over all attempts
    first = recent[0] if len(recent) > 1 else (0, 0.0)
    steps, seconds = recent[-1][0] - first[0], recent[-1][1] - first[1]
    if steps <= 0 or seconds <= 0:
        return None
    evaluation_seconds, every = _measure_evaluations(eval_rows)
    return Pace(seconds / steps, evaluation_seconds, every)


def _measure_evaluations(rows: Sequence[EvalRow]) -> tuple[float, float | None]:
    recent = rows[-RECENT_EVALUATIONS:]
    took = [row.seconds for row in recent if row.seconds is not None and _is_time(row.seconds)]
    if not took:
        return 0.0, None
    steps = recent[-1].step - recent[0].step if len(recent) > 1 else recent[-1].step
    every = steps / max(1, len(recent) - 1)
    return sum(took) / len(took), every if every > 0 else None


def remaining_seconds(pace: Pace, *, step: int, total_steps: int) -> float:
    """How long the steps after `step` will take, with the evaluations among them."""
    steps = max(0, total_steps - step)
    evaluations = math.ceil(steps / pace.evaluation_every) if pace.evaluation_every else 0
    return steps * pace.step_seconds + evaluations * pace.evaluation_seconds


def spent_seconds(pace: Pace, eval_rows: Sequence[EvalRow], *, since_step: int, step: int) -> float:
    """How long the steps after `since_step` up to `step` have taken at this pace, with the evaluations among them."""
    num_evaluations = sum(since_step < row.step <= step for row in eval_rows)
    return (step - since_step) * pace.step_seconds + num_evaluations * pace.evaluation_seconds


def _is_time(seconds: float | None) -> bool:
    return seconds is not None and math.isfinite(seconds) and seconds >= 0
