"""The record of a rank says `step` again after the last hook, whatever phase a hook has entered."""

from typing import Any

from dstrain.data.plan import Position
from dstrain.training.hooks.progress import ProgressHook
from dstrain.training.state import Progress
from tests.unit.training.training_cases import Recorder, build_step


def test_every_step_is_followed_by_the_phase_of_the_next_and_the_last_by_the_finish() -> None:
    phases: list[tuple[str, Any]] = []
    hook = ProgressHook(enter=lambda phase, *, step: phases.append((phase, step)))
    control = Recorder().control
    hook.on_start(Progress(4, Position(0, 4)), control)
    hook.on_step(build_step(5), control)
    hook.on_step(build_step(6), control)
    hook.on_stop(Progress(6, Position(0, 6)), control)
    assert phases == [("step", 4), ("step", 5), ("step", 6), ("finish", 6)]


def test_it_keeps_no_state() -> None:
    assert ProgressHook(enter=lambda *arguments, **given: None).state() == {}
