"""When the run's state is saved."""

import pytest
from training_cases import Recorder, build_step

from dstrain.config.machine import Checkpoint
from dstrain.data.plan import Position
from dstrain.training.hooks.checkpoint import CheckpointHook
from dstrain.training.state import Progress


def build_hook(every_steps: int | None) -> tuple[CheckpointHook, list[object]]:
    calls: list[object] = []
    settings = Checkpoint(every_steps=every_steps)
    return CheckpointHook(settings=settings, save=calls.append, prune=lambda: calls.append("prune")), calls


@pytest.mark.parametrize(("every_steps", "saved"), [(None, [7]), (3, [3, 6, 7]), (7, [7]), (1, list(range(1, 8)))])
def test_saves_at_its_cadence_and_at_the_end_once(every_steps: int | None, saved: list[int]) -> None:
    hook, calls = build_hook(every_steps)
    for step in range(1, 8):
        hook.on_step(build_step(step, total_steps=7), Recorder().control)
    assert [call.step for call in calls if isinstance(call, Progress)] == saved


def test_saves_where_the_run_stands_and_prunes_afterwards() -> None:
    hook, calls = build_hook(1)
    hook.on_step(build_step(4), Recorder().control)
    assert calls == [Progress(4, Position(0, 4)), "prune"]


def test_a_request_is_met_once() -> None:
    hook, calls = build_hook(None)
    control = Recorder().control
    control.request_checkpoint()
    hook.on_step(build_step(1), control)
    hook.on_step(build_step(2), control)
    assert [call.step for call in calls if isinstance(call, Progress)] == [1]
    assert not control.checkpoint_requested


def test_a_run_that_stops_is_saved() -> None:
    hook, calls = build_hook(None)
    control = Recorder().control
    control.request_stop("received SIGTERM", preempted=True)
    hook.on_step(build_step(5), control)
    assert calls[0] == Progress(5, Position(0, 5))
