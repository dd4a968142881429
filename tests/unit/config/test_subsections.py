"""Sections inside the sections of the recipe."""

import pytest
from pydantic import ValidationError

from dstrain.config.subsections import EarlyStopping


def test_early_stopping_needs_patience() -> None:
    assert EarlyStopping(patience=3).min_delta == 0.0
    with pytest.raises(ValidationError):
        EarlyStopping(patience=0)
