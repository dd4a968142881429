"""The pace of a run by a trial, by earlier runs and by a peak."""

import pytest

from dstrain.forecast.durations import evaluation_operations, step_operations
from dstrain.forecast.pace import Rates, Trial, pace_of_peak, pace_of_rates, pace_of_trial
from tests.distributed.memory import architecture_of, build_config
from tests.unit.forecast.forecast_cases import on_gpus
from tests.unit.forecast.test_durations import WORK

ARCHITECTURE = architecture_of(build_config("m2m100"))
POSITIONS = 2 * 4 * (12 + 9)


def trial(**changes: object) -> Trial:
    values = {
        "step_seconds": (9.0, 9.0, 1.0, 2.0, 3.0),
        "step_positions": (1, 1, 100, 200, 300),
        "evaluation_seconds": 6.0,
        "evaluation_rows": 2,
        "mean_length": 9.0,
        "around_seconds": 30.0,
        "num_ranks": 2,
    }
    return Trial(**(values | changes))  # type: ignore[arg-type]


def test_steps_grow_with_their_positions_and_the_first_do_not_count() -> None:
    pace = pace_of_trial(trial(), architecture=ARCHITECTURE, workload=WORK, num_beams=1)
    assert pace.step.likely == pytest.approx(0.01 * POSITIONS)
    assert pace.step.low < pace.step.likely < pace.step.high
    assert pace.around.likely == 30.0
    assert "3 steps measured on this machine with 2 rank(s)" in pace.origin


def test_an_evaluation_grows_with_rows_and_not_with_the_babble_of_an_untrained_model() -> None:
    same, babble = (
        pace_of_trial(
            trial(mean_length=length), architecture=ARCHITECTURE, workload=WORK, num_beams=1
        ).evaluation.likely
        for length in (9.0, 20.0)
    )
    assert same == pytest.approx(12.0)
    ratio = evaluation_operations(ARCHITECTURE, WORK, num_beams=1, length=9) / evaluation_operations(
        ARCHITECTURE, WORK, num_beams=1, length=20
    )
    assert babble == pytest.approx(12.0 * ratio)
    unknown = pace_of_trial(trial(), architecture=None, workload=WORK, num_beams=1)
    assert unknown.evaluation.likely == pytest.approx(12.0)


def test_earlier_runs_give_a_rate_by_rank() -> None:
    rates = [Rates("one", 1e9, 1e8), Rates("two", 4e9, None), Rates("three", 2e9, 2e8)]
    pace = pace_of_rates(rates, architecture=ARCHITECTURE, workload=WORK, world_size=2, num_beams=1)
    assert pace.step.likely == pytest.approx(step_operations(ARCHITECTURE, WORK.steps) / 2 / 2e9)
    assert pace.step.low < pace.step.likely < pace.step.high
    assert pace.evaluation.likely > 0
    assert "one, two, three" in pace.origin


def test_a_peak_gives_a_wide_range() -> None:
    pace = pace_of_peak(
        ARCHITECTURE,
        WORK,
        machines=on_gpus(1),
        precision="bf16",
        stage=1,
        num_trained=10**6,
        recomputes=False,
        num_beams=1,
    )
    assert pace.step.high > 1.5 * pace.step.low
    assert "the peak of h100" in pace.origin
