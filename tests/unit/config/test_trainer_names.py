"""The names that trainers and cards have for our keys."""

from dstrain.config.recipe import Training
from dstrain.config.trainer_names import (
    ACCUMULATION,
    BATCH_SIZES,
    ELSEWHERE,
    KEYS,
    OPTIMIZERS,
    SCHEDULES,
    SWITCHES,
    WITHOUT_VALUE,
)
from dstrain.config.vocabulary import choices_at


def test_every_schedule_and_optimizer_exists_here() -> None:
    assert {schedule for schedule, _ in SCHEDULES.values()} == set(choices_at(("training", "schedule")))
    assert set(OPTIMIZERS.values()) == set(choices_at(("training", "optimizer")))
    assert Training.model_fields.keys() >= {"schedule", "optimizer"}


def test_no_name_has_two_meanings() -> None:
    tables = [KEYS, SWITCHES, ELSEWHERE, dict.fromkeys(BATCH_SIZES)]
    names = [name for table in tables for name in table]
    assert len(names) == len(set(names))
    assert ACCUMULATION in ELSEWHERE


def test_options_without_a_value_are_known() -> None:
    assert {*SWITCHES, *ELSEWHERE} >= WITHOUT_VALUE
