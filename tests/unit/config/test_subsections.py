"""Sections inside the sections of the recipe."""

from typing import Any

import pytest
from pydantic import ValidationError

from dstrain.config.subsections import Adapter, EarlyStopping


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
