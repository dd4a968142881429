"""What an attempt finds of an earlier one: a checkpoint that it may resume from, its rows, or a run that needs no training."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dstrain.config.load import load_config
from dstrain.data.plan import Position
from dstrain.errors import UserError
from dstrain.run.restart import agree_on_finished, compare_with_history, find_start
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.rows import append_row
from tests.unit.run.run_cases import CPU, write_run


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


def test_a_run_that_was_saved_does_not_begin_again_without_its_checkpoints(tmp_path: Path) -> None:
    config = load_config("debug", overrides=[f"output_dir={tmp_path}"])
    attempt: Any = SimpleNamespace(ranks=CPU)
    assert find_start(config, attempt=attempt, allow_changed=()) is None
    append_row(tmp_path / "metrics.jsonl", {"kind": "event", "event": "start", "step": 0})
    assert find_start(config, attempt=attempt, allow_changed=()) is None
    append_row(tmp_path / "metrics.jsonl", {"kind": "event", "event": "stop", "step": 7})
    with pytest.raises(UserError, match="holds no checkpoint, but this run was saved at step 7 earlier"):
        find_start(config, attempt=attempt, allow_changed=())


def agree(run_dir: Path, *overrides: str, total_steps: int) -> bool:
    """Whether a run of 30 steps in 1.5 epochs, whose recipe has changed, is finished."""
    assembly: Any = SimpleNamespace(
        folder=RunFolder(run_dir),
        first_progress=SimpleNamespace(step=30, position=Position(1, 10)),
        resume=SimpleNamespace(
            allowed=("a change",), state=SimpleNamespace(step=30, hooks={"evaluate": {"best": None}})
        ),
        plan=SimpleNamespace(epoch_at=lambda position: 1.5),
        config=load_config("debug", overrides=overrides),
        total_steps=total_steps,
        ranks=CPU,
        attempt=SimpleNamespace(
            report=lambda outcome: None, number=2, phases=SimpleNamespace(mark_progress=lambda: None)
        ),
    )
    return agree_on_finished(assembly)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["training.max_steps=20"],
            "the run has 30 steps already, and training.max_steps asks for 20: nothing to train",
        ),
        (
            ["training.max_steps=null", "training.epochs=0.5"],
            "the run has trained 1.5 epochs already, and training.epochs asks for 0.5: nothing to train",
        ),
    ],
)
def test_a_run_that_is_past_the_length_asked_for_says_that_there_is_nothing_to_train(
    overrides: list[str], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dstrain.run.restart.complete_export", lambda folder, **model: None)
    folder = write_run(tmp_path / "run", last_event="finish")
    before = folder.config.read_text()
    with caplog.at_level(logging.WARNING):
        assert agree(folder.path, *overrides, total_steps=20)
    assert f"{said}; what has changed is not used" in caplog.text
    assert folder.config.read_text() == before
    assert folder.card.is_file()
    assert folder.report.is_file()
    unfinished = write_run(tmp_path / "stopped", last_event="stop")
    with pytest.raises(UserError, match=rf"{said}: allow a greater length, or take the model as it is: dstrain export"):
        agree(unfinished.path, *overrides, total_steps=20)


def test_a_finished_run_goes_on_where_a_change_makes_it_longer_and_an_unfinished_one_ends_at_its_end(
    tmp_path: Path,
) -> None:
    assert not agree(write_run(tmp_path / "finished", last_event="finish").path, total_steps=40)
    assert not agree(write_run(tmp_path / "stopped", last_event="stop").path, total_steps=30)
