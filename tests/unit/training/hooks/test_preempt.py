"""A signal stops the run at a step boundary, at the same step on all ranks; real signals to this process."""

import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dstrain.cluster.signals import SAVING
from dstrain.cluster.walltime import ALLOCATION_ENDS, WallTime
from dstrain.data.plan import Position
from dstrain.training.hooks import preempt
from dstrain.training.hooks.preempt import LAUNCHER_DIED, PreemptHook
from dstrain.training.state import Progress
from tests.unit.training.training_cases import Recorder, alone, build_step, endless


@pytest.fixture(autouse=True)
def _keep_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SAVING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@dataclass
class Peers:
    """Ranks as seen by one rank, whose peer contributes `others` to every reduction."""

    others: list[int]
    process: Any = field(default_factory=lambda: alone().process)
    rank: int = 0

    def max(self, values: Sequence[int]) -> list[int]:
        return [max(pair) for pair in zip(values, self.others, strict=True)]


def start(ranks: Any, *, walltime: WallTime | None = None, num_slow_steps: int = 0) -> tuple[PreemptHook, Recorder]:
    hook = PreemptHook(ranks=ranks, walltime=walltime or endless())
    hook.ignore_durations(num_steps=num_slow_steps)
    recorder = Recorder()
    hook.on_start(Progress(0, Position(0, 0)), recorder.control)
    return hook, recorder


@pytest.mark.parametrize("number", SAVING)
def test_a_signal_stops_the_run_at_the_next_step_and_is_named(number: signal.Signals) -> None:
    hook, recorder = start(alone())
    hook.on_step(build_step(1), recorder.control)
    assert recorder.control.stop_reason is None
    os.kill(os.getpid(), number)
    assert recorder.control.stop_reason is None
    hook.on_step(build_step(2), recorder.control)
    assert recorder.control.stop_reason == f"received {number.name}"
    assert recorder.control.preempted


def test_several_signals_stop_the_run_once() -> None:
    hook, recorder = start(alone())
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR1):
        os.kill(os.getpid(), number)
    hook.on_step(build_step(1), recorder.control)
    assert recorder.control.stop_reason == "received SIGTERM"


def test_a_rank_without_a_signal_stops_with_the_rank_that_has_one() -> None:
    hook, recorder = start(Peers([int(signal.SIGUSR1)]))
    hook.on_step(build_step(1), recorder.control)
    assert recorder.control.stop_reason == "received SIGUSR1"


@pytest.mark.parametrize("theirs", [0, int(signal.SIGUSR1), LAUNCHER_DIED])
def test_both_ranks_have_the_same_reason(theirs: int) -> None:
    hook, recorder = start(Peers([theirs]))
    os.kill(os.getpid(), signal.SIGTERM)
    hook.on_step(build_step(1), recorder.control)
    peer, their_recorder = start(Peers([int(signal.SIGTERM)]))
    peer._flag = theirs
    peer.on_step(build_step(1), their_recorder.control)
    assert recorder.control.stop_reason == their_recorder.control.stop_reason is not None


def test_a_launcher_that_died_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths: list[Any] = []
    timers: list[Any] = []
    monkeypatch.setattr(preempt, "watch_launcher", lambda pids, *, on_death: deaths.append((pids, on_death)))
    monkeypatch.setattr(preempt.threading.Timer, "start", lambda timer: timers.extend([timer]))
    ranks = alone()
    hook, recorder = start(replace(ranks, process=replace(ranks.process, launched_by=(17, 4))))
    ((pids, on_death),) = deaths
    assert pids == (17, 4)
    on_death()
    hook.on_step(build_step(1), recorder.control)
    assert recorder.control.stop_reason == "its launcher died"
    assert recorder.control.preempted
    (timer,) = timers
    assert (timer.function, timer.args, timer.daemon) == (os._exit, (85,), True)


def test_without_a_signal_nothing_stops() -> None:
    hook, recorder = start(Peers([0]))
    hook.on_step(build_step(1), recorder.control)
    assert recorder.control.stop_reason is None
    assert not recorder.control.preempted


def test_the_end_of_the_allocation_stops_the_run_without_any_signal() -> None:
    clock = [0.0]
    walltime = WallTime(1000.0, reserve_seconds=10.0, now=lambda: clock[0])
    walltime.record_duration("save", 100.0)
    hook, recorder = start(alone(), walltime=walltime)
    clock[0] = 880.0  # a step of 2 s, a save of 100 s and 10 s are left, and 8 s more
    hook.on_step(build_step(1), recorder.control)
    assert recorder.control.stop_reason is None
    clock[0] = 889.0
    hook.on_step(build_step(2), recorder.control)
    assert recorder.control.stop_reason == ALLOCATION_ENDS
    assert recorder.control.preempted


def test_a_running_evaluation_is_interrupted_while_there_is_still_time_to_save() -> None:
    clock = [0.0]
    walltime = WallTime(1000.0, reserve_seconds=10.0, now=lambda: clock[0])
    walltime.record_duration("save", 100.0)
    hook, recorder = start(alone(), walltime=walltime)
    requested: list[bool] = []
    clock[0] = 889.0
    assert not hook.should_stop(is_stop_requested=lambda: False, request_stop=lambda: requested.append(True))
    clock[0] = 891.0
    assert hook.should_stop(is_stop_requested=lambda: False, request_stop=lambda: requested.append(True))
    assert requested == [True]  # the other ranks are informed
    hook.agree(recorder.control)
    assert recorder.control.stop_reason == ALLOCATION_ENDS


def test_measured_durations_survive_a_restart() -> None:
    before, recorder = start(alone())
    before.on_step(build_step(1), recorder.control)
    walltime = endless()
    after, _ = start(alone(), walltime=walltime)
    after.load_state(before.state())
    assert walltime.durations == {"step": 2.0}


def test_steps_that_wait_for_a_compiler_are_not_used_to_estimate_later_steps() -> None:
    walltime = endless()
    hook, recorder = start(alone(), walltime=walltime, num_slow_steps=2)
    for step, seconds in enumerate((40.0, 30.0, 2.0), start=1):
        hook.on_step(build_step(step, seconds=seconds), recorder.control)
    assert walltime.durations == {"step": 2.0}
