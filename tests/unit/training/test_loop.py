"""The loop with an engine and a loader that only record their calls: order, ends, errors."""

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dstrain.data.plan import Position
from dstrain.engine.engine import Fault, StepResult, TrainingFault
from dstrain.training.loop import train
from dstrain.training.state import Control, Hook, Progress, StepInfo
from tests.unit.training.training_cases import Recorder

STEPS_PER_EPOCH = 3


class DiaryEngine:
    """Takes steps and records their numbers."""

    loss_scale = 8.0
    skipped_steps = 2

    def __init__(self, diary: list[Any], *, fail_at: int = 0, refuse_at: Sequence[int] = ()) -> None:
        self.diary = diary
        self.fail_at = fail_at
        self.refuse_at = list(refuse_at)
        self.limits: list[float | None] = []

    def step(self, batch: Any, *, step: int, loss_limit: float | None) -> StepResult:
        if step == self.fail_at:
            raise RuntimeError("the device is gone")
        self.limits.append(loss_limit)
        if step in self.refuse_at:
            self.refuse_at.remove(step)
            return StepResult(torch.tensor(torch.nan), 1.0, 0.1, False, Fault("loss", loss=torch.nan))
        self.diary.append(("step", step, batch.plan.position))
        return StepResult(torch.tensor(float(step)), 1.0, 0.1, True)


class DiaryLoader:
    """Endless batches that know their position."""

    def __init__(self, diary: list[Any]) -> None:
        self.diary = diary

    def iterate_from(self, position: Position) -> Iterator[Any]:
        try:
            while True:
                epoch, step = position.epoch, position.step
                after = Position(epoch + (step + 1) // STEPS_PER_EPOCH, (step + 1) % STEPS_PER_EPOCH)
                yield SimpleNamespace(
                    plan=SimpleNamespace(position=position, next_position=after),
                    target_tokens=11, source_tokens=12, padded_source_tokens=13, padded_target_tokens=14, data_seconds=0.5,
                )  # fmt: skip
                position = after
        finally:
            self.diary.append("loader closed")


class DiaryQuarantine:
    """Records its calls, and may refuse a step."""

    loss_limit = 4.5

    def __init__(self, diary: list[Any], *, is_full: bool = False) -> None:
        self.diary = diary
        self.is_full = is_full

    def set_aside(self, batch: Any, *, fault: Fault, step: int) -> None:
        if self.is_full:
            raise TrainingFault("too many rows")
        self.diary.append(("set aside", step, batch.plan.position, fault.kind))


class DiaryHook(Hook):
    """Records its calls; `act` is called with every step."""

    def __init__(self, name: str, diary: list[Any], *, act: Callable[[StepInfo, Control], None] | None = None) -> None:
        self.name = name
        self.diary = diary
        self.act = act
        self.infos: list[StepInfo] = []

    def on_start(self, progress: Progress, control: Control) -> None:
        self.diary.append((self.name, "start", progress.step))

    def on_step(self, info: StepInfo, control: Control) -> None:
        self.infos.append(info)
        self.diary.append((self.name, "step", info.step))
        if self.act is not None:
            self.act(info, control)

    def on_stop(self, progress: Progress, control: Control) -> None:
        self.diary.append((self.name, "stop", progress.step))

    def on_error(self, error: BaseException) -> None:
        self.diary.append((self.name, "error", str(error)))


def run(
    hooks: list[DiaryHook],
    diary: list[Any],
    *,
    first: Progress | None = None,
    total_steps: int = 2,
    engine: DiaryEngine | None = None,
    is_full: bool = False,
) -> tuple[Progress, Control]:
    control = Recorder().control
    progress = train(
        engine or DiaryEngine(diary),  # type: ignore[arg-type]
        loader=DiaryLoader(diary),  # type: ignore[arg-type]
        progress=first or Progress(0, Position(0, 0)),
        total_steps=total_steps,
        epoch_at=lambda position: position.epoch + position.step / STEPS_PER_EPOCH,
        hooks=hooks,
        control=control,
        quarantine=DiaryQuarantine(diary, is_full=is_full),  # type: ignore[arg-type]
    )
    return progress, control


def test_hooks_are_called_in_their_order_around_and_after_every_step() -> None:
    diary: list[Any] = []
    progress, _ = run([DiaryHook("a", diary), DiaryHook("b", diary)], diary)
    assert diary == [
        ("a", "start", 0), ("b", "start", 0),
        ("step", 1, Position(0, 0)), ("a", "step", 1), ("b", "step", 1),
        ("step", 2, Position(0, 1)), ("a", "step", 2), ("b", "step", 2),
        "loader closed",
        ("a", "stop", 2), ("b", "stop", 2),
    ]  # fmt: skip
    assert progress == Progress(2, Position(0, 2))


def test_a_run_resumes_at_its_position() -> None:
    diary: list[Any] = []
    progress, _ = run([], diary, first=Progress(4, Position(1, 1)), total_steps=7)
    assert diary[:-1] == [("step", 5, Position(1, 1)), ("step", 6, Position(1, 2)), ("step", 7, Position(2, 0))]
    assert progress == Progress(7, Position(2, 1))


def test_a_finished_run_takes_no_step() -> None:
    diary: list[Any] = []
    first = Progress(2, Position(0, 2))
    progress, _ = run([DiaryHook("a", diary)], diary, first=first)
    assert progress == first
    assert [entry for entry in diary if entry != "loader closed"] == [("a", "start", 2), ("a", "stop", 2)]


def test_after_a_stop_is_requested_the_other_hooks_see_that_step_and_no_further_one() -> None:
    diary: list[Any] = []
    stopper = DiaryHook("a", diary, act=lambda info, control: control.request_stop("enough", preempted=True))
    progress, control = run([stopper, DiaryHook("b", diary)], diary, total_steps=50)
    assert progress.step == 1
    assert ("b", "step", 1) in diary
    assert diary[-3:] == ["loader closed", ("a", "stop", 1), ("b", "stop", 1)]
    assert (control.stop_reason, control.preempted) == ("enough", True)


def test_a_stop_requested_before_the_first_step_takes_no_step() -> None:
    class Stopper(DiaryHook):
        def on_start(self, progress: Progress, control: Control) -> None:
            control.request_stop("enough")

    diary: list[Any] = []
    progress, _ = run([Stopper("a", diary)], diary)
    assert progress.step == 0


def test_the_first_reason_to_stop_is_kept_and_preemption_is_not_forgotten() -> None:
    control = Recorder().control
    control.request_stop("early stopping")
    control.request_stop("received SIGTERM", preempted=True)
    control.request_stop("another")
    assert (control.stop_reason, control.preempted) == ("early stopping", True)


def test_an_error_reaches_every_hook_and_the_caller_and_the_loader_is_closed() -> None:
    diary: list[Any] = []
    with pytest.raises(RuntimeError, match="the device is gone"):
        run([DiaryHook("a", diary), DiaryHook("b", diary)], diary, engine=DiaryEngine(diary, fail_at=2))
    assert diary[-3:] == ["loader closed", ("a", "error", "the device is gone"), ("b", "error", "the device is gone")]
    assert not [entry for entry in diary if "stop" in entry]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_error_of_a_hook_is_an_error_of_the_run(kind: type[BaseException]) -> None:
    def fail(info: StepInfo, control: Control) -> None:
        raise kind("no")

    diary: list[Any] = []
    with pytest.raises(kind):
        run([DiaryHook("a", diary, act=fail), DiaryHook("b", diary)], diary)
    assert diary[-3:] == ["loader closed", ("a", "error", "no"), ("b", "error", "no")]


def test_a_step_is_described_with_what_follows_it() -> None:
    diary: list[Any] = []
    hook = DiaryHook("a", diary)
    run([hook], diary, total_steps=3)
    last = hook.infos[-1]
    assert (last.step, last.progress.position, last.epoch) == (3, Position(1, 0), 1.0)
    assert (last.is_last, hook.infos[1].is_last) == (True, False)
    assert (last.target_tokens, last.source_tokens) == (11, 12)
    assert (last.padded_source_tokens, last.padded_target_tokens, last.data_seconds) == (13, 14, 0.5)
    assert (last.loss_scale, last.skipped_steps, float(last.result.loss_sum)) == (8.0, 2, 3.0)
    assert last.seconds >= 0.0


def test_a_refused_step_is_repeated_at_its_position_with_batches_that_are_loaded_again() -> None:
    diary: list[Any] = []
    hook = DiaryHook("a", diary)
    engine = DiaryEngine(diary, refuse_at=[2, 2])
    progress, _ = run([hook], diary, total_steps=3, engine=engine)
    assert diary == [
        ("a", "start", 0),
        ("step", 1, Position(0, 0)), ("a", "step", 1),
        ("set aside", 2, Position(0, 1), "loss"), "loader closed",
        ("set aside", 2, Position(0, 1), "loss"), "loader closed",
        ("step", 2, Position(0, 1)), ("a", "step", 2),
        ("step", 3, Position(0, 2)), ("a", "step", 3),
        "loader closed",
        ("a", "stop", 3),
    ]  # fmt: skip
    assert progress == Progress(3, Position(1, 0))
    assert set(engine.limits) == {4.5}


def test_a_fault_that_no_row_explains_ends_the_run_without_another_step() -> None:
    diary: list[Any] = []
    with pytest.raises(TrainingFault, match="too many rows"):
        run([DiaryHook("a", diary)], diary, engine=DiaryEngine(diary, refuse_at=[2]), is_full=True)
    assert diary[-2:] == ["loader closed", ("a", "error", "too many rows")]
    assert ("a", "step", 2) not in diary
