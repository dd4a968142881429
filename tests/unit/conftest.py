"""Fixtures of every unit test."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _syncs_return_at_once() -> Iterator[None]:
    """No unit test cuts the power, and a sync takes milliseconds. What must be synced is tested on a simulated disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # fails for a closed descriptor, as a sync does
        yield
