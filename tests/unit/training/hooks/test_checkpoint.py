"""When the run's state is saved, and how the outcome of a save is reported."""

import logging
from pathlib import Path

import pytest

from dstrain.checkpoint.saver import SaveOutcome
from dstrain.config.machine import Checkpoint
from dstrain.data.plan import Position
from dstrain.training.hooks.checkpoint import CheckpointHook
from dstrain.training.state import Progress
from tests.unit.training.training_cases import Recorder, build_step, endless


class Saves:
    """A saver that records its calls, and whose saves end when they are waited for."""

    def __init__(self, *, problem: str | None = None) -> None:
        self.calls: list[object] = []
        self.problem = problem
        self.in_flight: list[SaveOutcome] = []

    def save(self, progress: Progress) -> list[SaveOutcome]:
        before = self.finish()
        self.calls.append(progress)
        directory = None if self.problem else Path(f"step-{progress.step}")
        self.in_flight = [SaveOutcome(progress.step, directory, self.problem)]
        return before

    def poll(self) -> list[SaveOutcome]:
        return []

    def finish(self) -> list[SaveOutcome]:
        self.calls += ["finish"] * len(self.in_flight)
        ended, self.in_flight = self.in_flight, []
        return ended

    def tidy(self) -> None:
        self.calls.append("tidy")

    @property
    def steps(self) -> list[int]:
        return [call.step for call in self.calls if isinstance(call, Progress)]


def build_hook(
    every_steps: int | None, *, background: bool = True, problem: str | None = None
) -> tuple[CheckpointHook, Saves]:
    saves = Saves(problem=problem)
    settings = Checkpoint(every_steps=every_steps, background=background)
    return CheckpointHook(settings=settings, walltime=endless(), save=saves.save, saves=saves), saves


@pytest.mark.parametrize(("every_steps", "saved"), [(None, [7]), (3, [3, 6, 7]), (7, [7]), (1, list(range(1, 8)))])
def test_saves_at_its_cadence_and_at_the_end_once(every_steps: int | None, saved: list[int]) -> None:
    hook, saves = build_hook(every_steps)
    for step in range(1, 8):
        hook.on_step(build_step(step, total_steps=7), Recorder().control)
    assert saves.steps == saved


@pytest.mark.parametrize(("background", "calls"), [(True, []), (False, ["finish"])])
def test_saves_the_present_progress_and_waits_only_without_background_saves(background: bool, calls: list[str]) -> None:
    hook, saves = build_hook(1, background=background)
    hook.on_step(build_step(4), Recorder().control)
    assert saves.calls == [Progress(4, Position(0, 4)), *calls]


def test_a_request_causes_one_save() -> None:
    hook, saves = build_hook(None)
    control = Recorder().control
    control.request_checkpoint()
    hook.on_step(build_step(1), control)
    hook.on_step(build_step(2), control)
    assert saves.steps == [1]
    assert not control.checkpoint_requested


def test_a_run_that_stops_is_saved_and_waits_for_the_save(caplog: pytest.LogCaptureFixture) -> None:
    hook, saves = build_hook(None)
    control = Recorder().control
    control.request_stop("received SIGTERM", preempted=True)
    hook.on_step(build_step(5), control)
    with caplog.at_level(logging.INFO):
        hook.on_stop(Progress(5, Position(0, 5)), control)
    assert saves.calls == [Progress(5, Position(0, 5)), "finish", "tidy"]
    assert "saved step-5" in caplog.text
    assert control.unsaved is None


def test_a_save_that_failed_is_recorded_and_forgotten_after_one_that_did_not() -> None:
    hook, saves = build_hook(1, problem="No space left on device")
    recorder = Recorder()
    for step in (1, 2):
        hook.on_step(build_step(step), recorder.control)
    assert recorder.control.unsaved == "step 1 could not be saved: No space left on device"
    assert [(row["event"], row["step"]) for row in recorder.rows] == [("unsaved", 1)]
    saves.problem = None
    for step in (3, 4):
        hook.on_step(build_step(step), recorder.control)
    assert recorder.control.unsaved is None
