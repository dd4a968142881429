"""What an attempt finds of an earlier one: rows that it had to write are missed, rows that were not due yet are not."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dstrain.config.load import load_config
from dstrain.run.restart import compare_with_history
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.rows import append_row


def warnings_of(run_dir: Path, *, step: int, every_steps: int) -> list[str]:
    """Warnings of a run that resumes from a checkpoint of `step`."""
    config = load_config("debug", overrides=[f"logging.every_steps={every_steps}"])
    assembly: Any = SimpleNamespace(
        folder=RunFolder(run_dir),
        first_progress=SimpleNamespace(step=step),
        resume=object(),
        config=config,
        warnings=[],
    )
    compare_with_history(assembly)
    found: list[str] = assembly.warnings
    return found


@pytest.mark.parametrize(("step", "is_missed"), [(7, False), (9, False), (10, True), (25, True)])
def test_rows_are_missed_once_one_was_due(step: int, is_missed: bool, tmp_path: Path) -> None:
    append_row(tmp_path / "metrics.jsonl", {"kind": "event", "event": "stop", "step": step})
    found = warnings_of(tmp_path, step=step, every_steps=10)
    assert bool(found) == is_missed
    if found:
        assert f"has no rows up to step {step}" in found[0]


def test_rows_that_are_there_are_not_missed(tmp_path: Path) -> None:
    append_row(tmp_path / "metrics.jsonl", {"kind": "train", "step": 10, "epoch": 1.0, "loss": 1.0})
    assert warnings_of(tmp_path, step=25, every_steps=10) == []
