"""Settings inside one section of the recipe half that cannot go together."""

from typing import Any

import pytest
from pydantic import ValidationError

from dstrain.config.load import ConfigError, load_config
from dstrain.config.recipe import Adapter, EarlyStopping, Model, Scratch, Task, Training
from dstrain.config.section import Section
from tests.unit.config.config_cases import assert_refused

STEPS = {"batch_size": 1, "learning_rate": 1.0}


@pytest.mark.parametrize(
    ("section", "values", "keys", "message"),
    [
        (Scratch, {"architecture": "t5", "hidden_size": 10, "num_heads": 4}, ("hidden_size", "num_heads"), "multiple"),
        (Model, {}, ("name", "scratch", "from_run"), "found none"),
        (Model, {"name": "x", "scratch": {"architecture": "t5"}}, ("name", "scratch"), "found name and scratch"),
        (Model, {"name": "x", "from_run": "y"}, ("name", "from_run"), "found name and from_run"),
        (Model, {"from_run": "y", "revision": "main"}, ("revision", "from_run"), "name a step"),
        (Training, STEPS, ("max_steps", "epochs"), "found none"),
        (Training, STEPS | {"epochs": 1.0, "max_steps": 1}, ("max_steps", "epochs"), "found both"),
        (
            Training,
            STEPS | {"epochs": 1e8, "batch_unit": "target_tokens"},
            ("epochs", "batch_unit"),
            "give max_steps instead",
        ),
        (Task, {"kind": "translation", "name": "x"}, ("name", "kind"), "has its own name"),
    ],
)
def test_settings_that_exclude_each_other_are_refused_with_their_keys(
    section: type[Section], values: dict[str, Any], keys: tuple[str, ...], message: str
) -> None:
    assert_refused(section, values, keys=keys, message=message)


def test_an_adapter_goes_with_the_weights_of_another_run() -> None:
    assert Model.model_validate({"from_run": "runs/x@best", "adapter": {"rank": 4}}).adapter is not None


def test_epochs_without_an_end_are_accepted_where_they_need_no_count() -> None:
    assert Training.model_validate(STEPS | {"epochs": 1e8}).epochs == 1e8
    with pytest.raises(ValidationError, match="less than or equal to 1000000000"):
        Training.model_validate(STEPS | {"epochs": 1e308})


@pytest.mark.parametrize(
    "override",
    [
        "training.learning_rate=1e308",
        "training.epsilon=1e308",
        "training.weight_decay=1e308",
        "training.max_grad_norm=1e308",
        "training.spike_factor=1e308",
        "training.early_stopping={patience: 1, min_delta: 1e308}",
        "evaluation.length_penalty=1e308",
        "evaluation.length_penalty=-1e308",
        "checkpoint.keep_last=1000000000",
    ],
)
def test_no_number_may_be_beyond_reason(override: str) -> None:
    with pytest.raises(ConfigError, match=r"must be at (most|least)"):
        load_config("debug", overrides=[override, "evaluation.every_steps=5"])


def test_early_stopping_needs_patience() -> None:
    assert EarlyStopping(patience=3).min_delta == 0.0
    with pytest.raises(ValidationError):
        EarlyStopping(patience=0)


@pytest.mark.parametrize(
    "values", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"targets": "some"}, {"targets": []}]
)
def test_an_adapter_that_could_not_learn_is_refused(values: dict[str, Any]) -> None:
    assert Adapter().targets == "attention"
    with pytest.raises(ValidationError):
        Adapter(**values)
