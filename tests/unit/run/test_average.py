"""Which checkpoints are averaged: the last, or those of the best evaluations."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dstrain.errors import UserError
from dstrain.run.average import _find_last, choose_best, choose_last
from dstrain.run_folder.layout import RunFolder
from tests.unit.checkpoint.checkpoint_cases import save
from tests.unit.run.run_cases import write_run


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Four evaluations, three of them with a checkpoint."""
    found = write_run(tmp_path / "run", bleu={10: 20.0, 20: 30.0, 30: 25.0, 40: 22.0})
    for step in (10, 30, 40):
        save(found.checkpoints, step=step, lease=1)
    return found


def test_the_last_are_the_newest_checkpoints(folder: RunFolder) -> None:
    assert choose_last(folder, number=2) == [40, 30]


def test_the_best_are_those_of_the_best_evaluations_that_have_a_checkpoint(folder: RunFolder) -> None:
    assert choose_best(folder, number=1) == [30]
    assert choose_best(folder, number=2) == [30, 40]


def test_more_than_there_are_is_refused_with_what_there_is(folder: RunFolder) -> None:
    with pytest.raises(UserError, match=r"4 checkpoints are wanted, and there are 3 \(steps: 40, 30, 10\)"):
        choose_last(folder, number=4)
    with pytest.raises(
        UserError, match=r"4 evaluations with a checkpoint are wanted, and there are 3 \(steps: 30, 40, 10\)"
    ):
        choose_best(folder, number=4)


def test_at_the_end_of_a_run_it_is_said_that_there_are_fewer_and_what_is_of_no_use(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    assembly: Any = SimpleNamespace(folder=folder)
    assert _find_last(assembly, number=4) == []  # their states are no states
    assert "evaluation.average_last is 4, and there are 3 checkpoints: these are averaged" in caplog.text
    assert "no average: " in caplog.text
