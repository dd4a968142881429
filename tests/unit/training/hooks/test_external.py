"""The hook that has evaluations scored by other programs."""

from typing import Any

from dstrain.data.plan import Position
from dstrain.training.hooks.external import ExternalHook
from dstrain.training.state import Progress
from tests.unit.training.training_cases import Recorder, build_step


class Scores:
    """Takes down what it is asked to do."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def add(self, step: int) -> None:
        self.asked.append(step)

    def poll(self) -> bool:
        self.asked.append("poll")
        return True

    def close(self) -> None:
        self.asked.append("close")


def build(scores: Scores | None) -> ExternalHook:
    given: Any = scores
    return ExternalHook(given, find_evaluated=lambda: [5, 10], was_evaluated=lambda step: step == 15)


def test_evaluations_before_a_restart_and_after_a_step_are_handed_over() -> None:
    scores, control = Scores(), Recorder().control
    hook = build(scores)
    hook.on_start(Progress(14, Position(0, 14)), control)
    for step in (15, 16):
        hook.on_step(build_step(step), control)
    hook.on_error(ValueError())
    assert scores.asked == [5, 10, 15, "poll", "poll", "close"]


def test_without_programs_nothing_happens() -> None:
    hook, control = build(None), Recorder().control
    hook.on_start(Progress(14, Position(0, 14)), control)
    hook.on_step(build_step(15), control)
    hook.close()
    assert hook.state() == {}
