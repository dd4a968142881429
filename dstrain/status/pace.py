"""How fast a run trains, by its own rows, and how long the rest will take. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dstrain.run_folder.rows import EvalRow, TrainRow

RECENT_ROWS = 20
"""Logging intervals that tell the present speed: the first steps compile and warm up."""
RECENT_EVALUATIONS = 5


@dataclass(frozen=True, slots=True)
class Pace:
    """What the recent rows say."""

    step_seconds: float
    """Of one optimizer step, the wait for its data included, evaluations and saves not."""
    evaluation_seconds: float = 0.0
    """Of one evaluation."""
    evaluation_every: float | None = None
    """Steps between evaluations; None before the first."""


def measure_pace(train_rows: Sequence[TrainRow], eval_rows: Sequence[EvalRow]) -> Pace | None:
    """The present speed, None before a row tells it. Rows are in order, none of them superseded."""
    timed = [(row.step, row.elapsed_seconds) for row in train_rows if _is_time(row.elapsed_seconds)]
    recent = [(step, seconds) for step, seconds in timed[-RECENT_ROWS - 1 :] if seconds is not None]
    if not recent:
        return None
    # trained seconds count from step 0, over all restarts
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


def _is_time(seconds: float | None) -> bool:
    return seconds is not None and math.isfinite(seconds) and seconds >= 0
