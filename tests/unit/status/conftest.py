"""The run that the tests of this package look at."""

from pathlib import Path

import pytest

from tests.unit.status.status_cases import write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two ranks on another node, 120 of 1000 steps done, with scores and a checkpoint."""
    return write_run(tmp_path)
