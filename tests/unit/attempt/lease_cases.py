"""Acquires leases for the tests: at once, or with another action during the pause."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dstrain.attempt.lease import Lease, acquire
from dstrain.cluster.processes import Holder, this_process

STALE_SECONDS = 60.0


def no_sleep(seconds: float) -> None:
    pytest.fail("waited, although everything was known")


def take(
    folder: Path,
    *,
    holder: Holder | None = None,
    sleep: Callable[[float], None] = no_sleep,
    job: str = "",
    restart: int = 0,
    launch: int = 0,
) -> Lease:
    holder = holder or this_process()
    return acquire(
        folder, holder=holder, stale_seconds=STALE_SECONDS, job=job, restart=restart, launch=launch, sleep=sleep
    )


def elsewhere(name: str = "far") -> Holder:
    """This process as if it ran on another host."""
    return replace(this_process(), host=name, pid_namespace=f"pid:[1] {name}")


def claim_path(folder: Path, number: int) -> Path:
    return folder / "lease" / f"{number:08d}.json"


def make_old(path: Path, *, seconds: float) -> None:
    written = path.stat().st_mtime - seconds
    os.utime(path, (written, written))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "lease").iterdir())
