"""How an attempt ends: which step is the best, what outcome and exit code it has, and what a finished run still updates."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from dstrain.attempt.lease import acquire
from dstrain.cluster.exit_codes import EXIT_FAILED, EXIT_PREEMPTED
from dstrain.cluster.processes import this_process
from dstrain.config.machine import Machine
from dstrain.run import finish
from dstrain.run.finish import _outcome, complete_export, find_best_step, refresh_finished_run
from dstrain.run_folder.layout import BEST, EXPORTED_STEP
from dstrain.run_folder.outcome import RunOutcome
from dstrain.run_folder.scores import SOURCES
from dstrain.training.state import Control
from tests.unit.run.run_cases import write_run

MACHINE = Machine(lease_seconds=60.0)


def build_control(**changes: Any) -> Control:
    return Control(record=lambda row: None, **changes)


def test_the_records_decide_the_best_step_before_what_the_hook_knows(tmp_path: Path) -> None:
    known = {"step": 10, "scores": {"bleu": 20.0}}
    assert find_best_step(write_run(tmp_path / "with", bleu={10: 20.0, 20: 30.0}), known=known) == 20
    assert find_best_step(write_run(tmp_path / "without"), known=known) == 10
    assert find_best_step(write_run(tmp_path / "neither"), known=None) is None


@pytest.mark.parametrize(
    ("control", "outcome", "code", "message"),
    [
        (build_control(), "finished", 0, ""),
        (build_control(stop_reason="early stopping"), "finished", 0, "early stopping"),
        (
            build_control(stop_reason="received SIGTERM", preempted=True),
            "preempted",
            EXIT_PREEMPTED,
            "received SIGTERM",
        ),
        (build_control(unsaved="step 7 could not be saved"), "failed", EXIT_FAILED, "step 7 could not be saved"),
        (
            build_control(stop_reason="received SIGTERM", preempted=True, unsaved="no room"),
            "failed",
            EXIT_FAILED,
            "no room",
        ),
    ],
)
def test_an_attempt_without_its_last_checkpoint_has_failed_whatever_stopped_it(
    control: Control, outcome: str, code: int, message: str
) -> None:
    found = _outcome(control, step=7, attempt=3)
    assert (found.outcome, found.exit_code, found.message) == (outcome, code, message)
    assert (found.step, found.attempt) == (7, 3)


def test_a_model_of_the_right_step_is_not_exported_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path / "run")
    folder.model(BEST).mkdir()
    (folder.model(BEST) / EXPORTED_STEP).write_text(json.dumps({"step": 20}))
    steps: list[int | None] = []
    monkeypatch.setattr(finish, "find_checkpoint", lambda run_dir, *, step: steps.append(step))
    monkeypatch.setattr(finish, "export_checkpoint", lambda folder, *, directory, to: None)
    complete_export(folder, name=BEST, step=20)
    assert steps == []
    complete_export(folder, name=BEST, step=30)
    assert steps == [30]


def test_a_model_whose_checkpoint_is_missing_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_run(tmp_path / "run")
    complete_export(folder, name=BEST, step=20)
    assert f"{folder.model(BEST)} does not hold the model of step 20: " in caplog.text
    assert not folder.model(BEST).exists()


@pytest.mark.parametrize("last_event", [None, "stop", "resume"])
def test_a_run_that_is_not_finished_is_left_alone(tmp_path: Path, last_event: str | None) -> None:
    folder = write_run(tmp_path / "run", last_event=last_event)
    assert refresh_finished_run(folder, machine=MACHINE) is False
    assert not folder.card.exists()
    assert not folder.claims.exists()


def test_card_and_report_of_a_finished_run_are_written_again_and_its_lease_released(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", last_event="finish")
    assert refresh_finished_run(folder, machine=MACHINE) is True
    assert folder.card.is_file()
    assert folder.report.is_file()
    acquire(folder.path, holder=this_process(), stale_seconds=60.0).release()


def test_a_finished_run_that_another_process_writes_to_is_left_to_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_run(tmp_path / "run", last_event="finish")
    lease = acquire(folder.path, holder=this_process(), stale_seconds=60.0)
    with caplog.at_level(logging.WARNING):
        assert refresh_finished_run(folder, machine=Machine(lease_seconds=1.0)) is True
    lease.release()
    assert f"another process is writing to {folder.path}" in caplog.text
    assert not folder.card.exists()


def test_the_end_of_a_run_is_said_with_commands_for_files_that_are_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = write_run(tmp_path / "run", bleu={10: 20.0, 20: 30.0}, last_event="finish")
    finish.say_end(folder, outcome=RunOutcome("finished", 0, "early stopping: no improvement", step=30))
    assert caplog.messages[0] == f"{folder.path}: finished at step 30"
    assert "bleu 30.0000 at step 20" in caplog.text
    assert "early stopping: no improvement" in caplog.text
    assert " predict " not in caplog.text  # there are no sources to predict
    sources = folder.hypotheses(20) / SOURCES
    sources.parent.mkdir(parents=True)
    sources.write_text("하나\n")
    finish.say_end(folder, outcome=RunOutcome("finished", 0, step=30))
    assert f" predict {folder.path} < {sources}" in caplog.text
