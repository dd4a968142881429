"""Rows of the log: what they sum, how they survive a restart, and what is shown with and without a terminal."""

import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch

from dstrain.checkpoint.changes import Part
from dstrain.cluster import progress
from dstrain.data.plan import Position
from dstrain.engine.engine import StepResult
from dstrain.training.hooks.log import LogHook
from dstrain.training.state import Progress
from tests.distributed.steps import build_config
from tests.unit.training.training_cases import Recorder, alone, build_step

TOTAL_STEPS = 10


def build_hook(
    *, every_steps: int = 3, terminal: bool = False, rank: int = 0, total_steps: int = TOTAL_STEPS
) -> LogHook:
    ranks = alone()
    return LogHook(
        config=build_config(logging={"every_steps": every_steps, "tensorboard": False}),
        ranks=replace(ranks, process=replace(ranks.process, rank=rank)),
        total_steps=total_steps,
        is_terminal=terminal,
    )


def run(hook: LogHook, steps: Iterable[int], *, start: int = 0, **changes: Any) -> list[dict[str, Any]]:
    recorder = Recorder()
    hook.on_start(Progress(start, Position(0, start)), recorder.control)
    for step in steps:
        info = build_step(step, total_steps=TOTAL_STEPS, loss_sum=float(step * step), **changes)
        hook.on_step(info, recorder.control)
    return recorder.rows


def test_rows_are_written_at_the_cadence_and_at_the_end() -> None:
    hook = build_hook()
    assert [row["step"] for row in run(hook, range(1, 11))] == [3, 6, 9, 10]


def test_a_row_sums_its_own_interval() -> None:
    hook = build_hook()
    rows = run(hook, range(1, 11))
    assert [row["loss"] for row in rows] == pytest.approx([14 / 30, 77 / 30, 194 / 30, 100 / 10])
    assert [row["target_tokens"] for row in rows] == [30, 30, 30, 10]
    second = rows[1]
    assert (second["source_tokens"], second["padded_source_tokens"], second["padded_target_tokens"]) == (24, 48, 36)
    assert (second["data_seconds"], second["target_tokens_per_second"]) == (0.75, 5.0)
    assert [row["elapsed_seconds"] for row in rows] == [6.0, 12.0, 18.0, 20.0]
    assert "seconds" not in second


def test_a_row_has_the_values_of_its_last_step_as_json() -> None:
    hook = build_hook(every_steps=1)
    result = StepResult(torch.tensor(5.0), torch.tensor(0.25), 2e-4, False)
    (row,) = run(hook, [4], result=result, loss_scale=128.0, skipped_steps=2)
    assert (row["kind"], row["step"], row["epoch"]) == ("train", 4, 0.4)
    assert (row["grad_norm"], row["learning_rate"]) == (0.25, 2e-4)
    assert (row["loss_scale"], row["skipped_steps"], row["loss"]) == (128.0, 2, 0.5)
    assert row["peak_memory_mb"] > 1.0
    json.dumps(row)


def test_a_loss_of_another_scale_does_not_enter_the_mean() -> None:
    first, second = build_hook(), build_hook()
    run(first, [1])
    second.load_state(json.loads(json.dumps(first.state())))
    assert second.reset({Part.LOSS}, attempt=2) == []
    (row,) = run(second, [2, 3], start=1)
    assert row["loss"] == pytest.approx((4 + 9) / 20)


@pytest.mark.parametrize("stopped_at", range(1, TOTAL_STEPS))
def test_a_restart_in_the_middle_of_an_interval_changes_no_row(stopped_at: int) -> None:
    straight = build_hook()
    first = build_hook()
    second = build_hook()
    expected = run(straight, range(1, 11))
    rows = run(first, range(1, stopped_at + 1))
    second.load_state(json.loads(json.dumps(first.state())))
    rows += run(second, range(stopped_at + 1, 11), start=stopped_at)
    for row in [*expected, *rows]:
        del row["peak_memory_mb"]
    assert rows == expected


def test_without_a_terminal_a_row_is_a_plain_line(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = build_hook()
    with caplog.at_level(logging.INFO):
        run(hook, range(1, 11))
    hook.on_stop(Progress(10, Position(0, 10)), Recorder().control)
    assert capsys.readouterr() == ("", "")
    assert len(caplog.messages) == 4
    assert caplog.messages[1].startswith(
        "step 6/10  epoch 0.60  loss 2.5667  lr 1.00e-03  grad 0.500  5 target tokens/s"
    )
    assert "ETA 0:00:0" in caplog.messages[1]
    assert "ETA" not in caplog.messages[3]


@pytest.mark.parametrize("terminal", [False, True])
def test_a_run_without_an_end_in_sight_has_no_eta(terminal: bool, caplog: pytest.LogCaptureFixture) -> None:
    hook = build_hook(total_steps=10**18, terminal=terminal)
    with caplog.at_level(logging.INFO):
        run(hook, range(1, 7))
    hook.on_stop(Progress(6, Position(0, 6)), Recorder().control)
    assert terminal or caplog.messages[1].endswith("ETA over 100 years")


def test_on_a_terminal_a_bar_replaces_the_lines(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "DRAW_SECONDS", 0.0)
    hook = build_hook(terminal=True)
    with caplog.at_level(logging.INFO):
        run(hook, range(6, 11), start=5)
        hook.on_stop(Progress(10, Position(0, 10)), Recorder().control)
    assert caplog.messages == []
    drawn = capsys.readouterr().err.split("\r\x1b[K")
    assert drawn[1].startswith("training  [#########       ] 6 of 10 steps, ")
    assert drawn[-2].startswith("training  [################] 10 of 10 steps  loss ")
    assert drawn[-1] == ""


def test_only_rank_0_shows_anything(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    hook = build_hook(terminal=True, rank=1)
    with caplog.at_level(logging.INFO):
        rows = run(hook, range(1, 11))
    assert [row["step"] for row in rows] == [3, 6, 9, 10]
    assert (capsys.readouterr(), caplog.messages) == (("", ""), [])


@pytest.mark.parametrize("started", [False, True])
def test_an_error_restores_the_terminal(
    started: bool,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "DRAW_SECONDS", 0.0)
    hook = build_hook(terminal=True)
    with caplog.at_level(logging.INFO):
        if started:
            run(hook, [1])
        hook.on_error(RuntimeError("no"))
    assert capsys.readouterr().err.endswith("\r\x1b[K" if started else "")


def skip_steps(hook: LogHook, pattern: str, *, start: int = 0) -> list[dict[str, Any]]:
    """The rows of steps that were applied (+, with a norm of 0.25) or skipped (-)."""
    recorder = Recorder()
    hook.on_start(Progress(start, Position(0, start)), recorder.control)
    for place, sign in enumerate(pattern):
        applied = sign == "+"
        step = start + place + 1
        result = StepResult(torch.tensor(1.0), 0.25 if applied else float("inf"), 1e-3, applied)
        skipped = pattern[: place + 1].count("-")
        hook.on_step(build_step(step, result=result, loss_scale=64.0, skipped_steps=skipped), recorder.control)
    return recorder.rows


def test_a_row_has_the_rate_of_skipped_steps_and_the_longest_streak_of_its_interval() -> None:
    hook = build_hook(every_steps=4)
    rows = skip_steps(hook, "+--+---+++---+++++++")
    assert [row["skip_rate"] for row in rows] == [2 / 4, 5 / 8, 7 / 12, 8 / 16, 8 / 20]
    assert [row["halvings_in_a_row"] for row in rows] == [2, 3, 2, 3, 0]


def test_several_consecutive_skipped_steps_are_reported_once_per_streak(caplog: pytest.LogCaptureFixture) -> None:
    hook = build_hook(every_steps=100)
    with caplog.at_level(logging.WARNING):
        skip_steps(hook, "--+--+")
        assert caplog.messages == []
        skip_steps(hook, "+-----+----", start=6)
    first, second = caplog.messages
    assert "3 steps in a row overflowed and were skipped, up to step 10" in first
    assert "The loss scale is now 64, the last finite gradient norm was 0.25" in first
    assert "up to step 16" in second


def test_a_warning_before_any_applied_step_says_so(caplog: pytest.LogCaptureFixture) -> None:
    hook = build_hook(every_steps=100)
    with caplog.at_level(logging.WARNING):
        skip_steps(hook, "---")
    assert "the last finite gradient norm was not known" in caplog.messages[0]


def test_a_streak_continues_after_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    first = build_hook(every_steps=100)
    skip_steps(first, "--")
    second = build_hook(every_steps=4)
    second.load_state(json.loads(json.dumps(first.state())))
    with caplog.at_level(logging.WARNING):
        (row,) = skip_steps(second, "-+", start=2)
    assert len(caplog.messages) == 1
    assert row["halvings_in_a_row"] == 3
