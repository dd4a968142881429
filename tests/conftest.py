"""Fixtures of more than one room."""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"  # no test may depend on a hub
if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a core; torch would take all of them
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests that run in the background or under nohup inherit that these are ignored, and so would the programs that they start.
for number, default in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, default)

# No test asserts on wall-clock time, and every run looks at the same cases.
settings.register_profile("dstrain", deadline=None, derandomize=True)
settings.load_profile("dstrain")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a system module on one worker: they share the runs that its fixtures make, which take minutes."""
    system = Path(__file__).parent / "system"
    for item in items:
        if system in item.path.parents:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """Undo what a program called in this process leaves for the tests that follow: its handler of SIGTERM, its log level."""
    log = logging.getLogger("dstrain")
    handler, level = signal.getsignal(signal.SIGTERM), log.level
    yield
    signal.signal(signal.SIGTERM, handler)
    log.setLevel(level)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data, which is not part of the project; skips where it is absent."""
    beside_the_project = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DSTRAIN_REAL_DATA") or beside_the_project)
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set DSTRAIN_REAL_DATA to the folder")
    return folder
