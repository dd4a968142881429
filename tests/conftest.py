"""Fixtures of more than one room."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may depend on a hub

# No test asserts on wall-clock time, and every run looks at the same cases.
settings.register_profile("dstrain", deadline=None, derandomize=True)
settings.load_profile("dstrain")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data, which is not part of the project; skips where it is absent."""
    beside_the_project = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DSTRAIN_REAL_DATA", beside_the_project))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set DSTRAIN_REAL_DATA to the folder")
    return folder
