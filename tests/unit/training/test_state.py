"""The values between the loop and its hooks: what describes a step, and what hooks may request."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import torch

from dstrain.data.loader import StepBatch
from dstrain.data.plan import Position, StepPlan
from dstrain.engine.engine import StepResult
from dstrain.run_folder.rows import TrainRow
from dstrain.training.hooks.log import SUMMED
from dstrain.training.state import Control, Hook, Progress, StepInfo, describe_step, new_event
from tests.unit.training.training_cases import Recorder, build_step


def test_the_counts_of_a_step_are_those_of_its_batch_and_keep_their_names_up_to_the_row() -> None:
    plan = StepPlan(Position(0, 0), Position(0, 1), torch.arange(0).numpy(), (), 7)
    batch = StepBatch(plan, (), 7, 6, padded_source_tokens=12, padded_target_tokens=14, data_seconds=0.5)
    engine: Any = SimpleNamespace(loss_scale=8.0, skipped_steps=2)
    info = describe_step(
        batch,
        StepResult(torch.tensor(1.0), 0.5, 1e-3, True),
        engine,
        Progress(1, plan.next_position),
        total_steps=3,
        epoch=0.5,
        seconds=2.0,
    )
    assert {name: getattr(info, name) for name in SUMMED} == {name: getattr(batch, name) for name in SUMMED}
    assert all(name in TrainRow.__dataclass_fields__ for name in SUMMED)
    assert (info.target_tokens, info.source_tokens, info.data_seconds, info.seconds) == (7, 6, 0.5, 2.0)
    assert (info.loss_scale, info.skipped_steps, info.step, info.epoch) == (8.0, 2, 1, 0.5)


def test_a_step_is_the_last_at_the_total_and_beyond_it() -> None:
    assert [build_step(step, total_steps=5).is_last for step in (4, 5, 6)] == [False, True, True]


def test_nothing_is_requested_of_a_new_loop() -> None:
    control = Recorder().control
    assert (control.stop_reason, control.preempted, control.checkpoint_requested, control.unsaved) == (
        None,
        False,
        False,
        None,
    )
    control.request_checkpoint()
    assert control.checkpoint_requested


def test_a_stop_without_preemption_does_not_end_as_one() -> None:
    control = Recorder().control
    control.request_stop("early stopping")
    assert (control.stop_reason, control.preempted) == ("early stopping", False)


def test_a_hook_may_leave_out_what_it_does_not_need() -> None:
    class Silent(Hook):
        """Only counts steps."""

        num_steps = 0

        def on_step(self, info: StepInfo, control: Control) -> None:
            self.num_steps += 1

    hook, control = Silent(), Recorder().control
    hook.on_start(Progress(0, Position(0, 0)), control)
    hook.on_step(build_step(1), control)
    hook.on_stop(Progress(1, Position(0, 1)), control)
    hook.on_error(ValueError("no"))
    assert hook.num_steps == 1
    assert hook.state() == {}
    hook.load_state({})


def test_an_event_carries_its_time_in_utc() -> None:
    event = new_event("stop", 7, message="received SIGTERM")
    assert (event.event, event.step, event.message) == ("stop", 7, "received SIGTERM")
    time = datetime.fromisoformat(event.time)
    assert time.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - time) < timedelta(minutes=10)
