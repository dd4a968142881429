"""When the run's state is saved, and how the outcome of a save is reported."""

import logging
from pathlib import Path

import pytest

from dstrain.checkpoint.saver import SaveOutcome
from dstrain.config.machine import Checkpoint
from dstrain.data.plan import Position
from dstrain.training.hooks.checkpoint import CannotSave, CheckpointHook
from dstrain.training.save_clock import SaveClock
from dstrain.training.state import Progress
from tests.unit.training.training_cases import Recorder, Watch, alone, build_step, endless


class Saves:
    """A saver that records its calls, and whose saves end when they are waited for."""

    def __init__(self, *, problem: str | None = None) -> None:
        self.calls: list[object] = []
        self.problem = problem
        self.is_writing = False
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
    every_steps: int | None,
    *,
    background: bool = True,
    problem: str | None = None,
    save_clock: SaveClock | None = None,
    every_minutes: float = 10.0,
) -> tuple[CheckpointHook, Saves]:
    saves = Saves(problem=problem)
    hook = CheckpointHook(
        settings=Checkpoint(every_steps=every_steps, every_minutes=every_minutes, background=background),
        ranks=alone(),
        walltime=endless(),
        save_clock=save_clock or SaveClock(0.0),
        save=saves.save,
        saves=saves,
    )
    return hook, saves


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
    hook, saves = build_hook(1)
    recorder = Recorder()
    hook.on_step(build_step(1), recorder.control)
    saves.problem = "No space left on device"
    for step in (2, 3):
        hook.on_step(build_step(step), recorder.control)
    assert recorder.control.unsaved == "step 2 could not be saved: No space left on device"
    assert [(row["event"], row["step"]) for row in recorder.rows] == [("unsaved", 2)]
    saves.problem = None
    for step in (4, 5):
        hook.on_step(build_step(step), recorder.control)
    assert recorder.control.unsaved is None


@pytest.mark.parametrize("background", [True, False])
def test_a_run_whose_first_save_fails_ends_once_all_ranks_know(background: bool) -> None:
    hook, saves = build_hook(None, problem="No space left on device", background=background)
    control = Recorder().control
    control.request_checkpoint()
    hook.on_step(build_step(1), control)
    saves.is_writing = True
    if background:
        hook.on_step(build_step(2), control)
    saves.is_writing = False
    with pytest.raises(CannotSave, match="step 1 could not be saved: No space left on device"):
        hook.on_step(build_step(3), control)


def test_without_saves_by_time_a_first_save_that_fails_is_tried_again() -> None:
    hook, saves = build_hook(2, problem="No space left on device", every_minutes=0.0)
    control = Recorder().control
    for step in (1, 2, 3):
        hook.on_step(build_step(step), control)
    assert control.unsaved == "step 2 could not be saved: No space left on device"
    saves.problem = None
    for step in (4, 5):
        hook.on_step(build_step(step), control)
    assert control.unsaved is None


def test_a_first_save_that_fails_at_the_end_is_left_to_the_outcome() -> None:
    hook, _ = build_hook(None, problem="No space left on device")
    control = Recorder().control
    hook.on_step(build_step(7, total_steps=7), control)
    hook.on_stop(Progress(7, Position(0, 7)), control)
    assert control.unsaved == "step 7 could not be saved: No space left on device"


def test_saves_that_hold_training_up_become_rarer_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(10.0)
    hook, saves = build_hook(None, save_clock=watch.save_clock)

    def save(progress: Progress) -> list[SaveOutcome]:
        watch.seconds += 9.0
        return saves.save(progress)

    hook._save = save
    control = Recorder().control
    for step in (1, 2, 3):
        watch.seconds += 1e4
        control.request_checkpoint()
        hook.on_step(build_step(step), control)
    assert caplog.text.count("training stood still for 9.0 s for a save, more than 1 % of the 10 minutes") == 1
    assert "they are 20 minutes apart" in caplog.text
