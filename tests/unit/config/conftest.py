"""A good recipe as a file."""

from pathlib import Path

import pytest

from tests.unit.config.config_cases import GOOD


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path
