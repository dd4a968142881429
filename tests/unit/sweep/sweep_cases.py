"""Sweep files, and why they are refused."""

from pathlib import Path

import pytest

from dstrain.sweep.members import Member, check_members, plan_members, read_sweep

ROOT = Path(__file__).resolve().parents[3]


GRID = "grid:\n  training.learning_rate: [1e-4, 3e-4]\n  seed: [1, 2]\n"


def write(folder: Path, text: str, *, head: str = "config: debug\n") -> str:
    """A sweep whose folder is `folder/runs`."""
    path = folder / "sweep.yaml"
    path.write_text(f"{head}output_dir: {folder / 'runs'}\n{text}")
    return str(path)


def plan(folder: Path, text: str, *typed: str) -> list[Member]:
    return plan_members(read_sweep(write(folder, text), typed=typed))


def refusal(folder: Path, text: str, *typed: str, head: str = "config: debug\n") -> str:
    """Why a sweep is refused; its file is called FILE."""
    path = write(folder, text, head=head)
    try:
        sweep = read_sweep(path, typed=typed)
        check_members(sweep, plan_members(sweep))
    except ValueError as error:
        return str(error).replace(path, "FILE")
    pytest.fail("the sweep is taken")
