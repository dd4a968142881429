"""A short run that is measured: its recipe, and what is read from its rows."""

from pathlib import Path

import pytest

from dstrain.drill.trial import MIN_STEPS, read_trial, shorten
from dstrain.errors import UserError
from dstrain.run_folder.record import RunRecord, build_record
from tests.unit.forecast.forecast_cases import build_recipe
from tests.unit.reporting.reporting_cases import run_info, train_row, translation_config, translation_row


def record_of(num_steps: int, *, evaluated: bool = True) -> RunRecord:
    rows = [train_row(step, elapsed_seconds=2.0 * step, padded_source_tokens=30) for step in range(1, num_steps + 1)]
    last = [translation_row(num_steps, bleu=1.0, loss=2.0, seconds=7.0)] if evaluated else []
    return build_record(translation_config(), info=run_info(), rows=[*rows, *last])


def test_the_recipe_is_that_of_the_run_but_for_its_length(tmp_path: Path) -> None:
    config = build_recipe(tmp_path, training__early_stopping={"patience": 2}, logging__trackers={"wandb": {}})
    short = shorten(config, steps=9, folder=tmp_path / "x")
    assert (short.training.max_steps, short.logging.every_steps) == (9, 1)
    assert (short.logging.tensorboard, short.logging.trackers) == (False, {})
    assert short.run_dir == str(tmp_path / "x")
    assert (short.model, short.task, short.precision) == (config.model, config.task, config.precision)
    assert short.data == config.data
    assert short.training.batch_size == config.training.batch_size
    assert short.machine == config.machine


def test_seconds_are_differences_and_the_rest_is_around(tmp_path: Path) -> None:
    trial = read_trial(record_of(5), seconds=60.0, num_ranks=2)
    assert trial.step_seconds == (2.0,) * 5
    assert trial.step_positions == (1030,) * 5
    assert trial.around_seconds == pytest.approx(60.0 - 10.0 - 7.0)
    assert (trial.evaluation_seconds, trial.evaluation_rows, trial.mean_length) == (7.0, 1000, 10.9556)


@pytest.mark.parametrize("record", [record_of(MIN_STEPS - 1), record_of(9, evaluated=False)])
def test_a_run_that_says_too_little_is_refused(record: RunRecord) -> None:
    with pytest.raises(UserError, match="--measure: the run has"):
        read_trial(record, seconds=60.0, num_ranks=1)
