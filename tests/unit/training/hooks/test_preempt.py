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
from dstrain.training.hooks.preempt import INTERRUPTED, LAUNCHER_DIED, PreemptHook
from dstrain.training.save_clock import SaveClock
from dstrain.training.state import Progress
from tests.unit.training.training_cases import Recorder, Watch, alone, build_step, endless


@pytest.fixture(autouse=True)
def _keep_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (*SAVING, signal.SIGINT)}
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


def start(
    ranks: Any, *, walltime: WallTime | None = None, num_slow_steps: int = 0, save_clock: SaveClock | None = None
) -> tuple[PreemptHook, Recorder]:
    hook = PreemptHook(ranks=ranks, walltime=walltime or endless(), save_clock=save_clock or SaveClock(0.0))
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
    hook, recorder = start(Peers([int(signal.SIGUSR1), 0]))
    hook.on_step(build_step(1), recorder.control)
    assert recorder.control.stop_reason == "received SIGUSR1"


def test_ctrl_c_stays_the_reason_whatever_its_launcher_does_next() -> None:
    hook, recorder = start(Peers([LAUNCHER_DIED, 0]))
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    hook.on_step(build_step(1), recorder.control)
    assert recorder.control.stop_reason == "received SIGINT (Ctrl-C)"
    peer, their_recorder = start(Peers([INTERRUPTED, 0]))
    os.kill(os.getpid(), signal.SIGTERM)
    peer.on_step(build_step(1), their_recorder.control)
    assert their_recorder.control.stop_reason == "received SIGINT (Ctrl-C)"
    assert recorder.control.preempted
    assert their_recorder.control.preempted


@pytest.mark.parametrize("theirs", [0, int(signal.SIGUSR1), LAUNCHER_DIED, INTERRUPTED])
def test_both_ranks_have_the_same_reason(theirs: int) -> None:
    hook, recorder = start(Peers([theirs, 0]))
    os.kill(os.getpid(), signal.SIGTERM)
    hook.on_step(build_step(1), recorder.control)
    peer, their_recorder = start(Peers([int(signal.SIGTERM), 0]))
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
    hook, recorder = start(Peers([0, 0]))
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


def test_a_save_by_time_is_requested_on_all_ranks_when_the_clock_of_rank_0_says_so() -> None:
    watch, late = Watch(10.0), Watch(10.0)
    late.seconds = 1e6
    first, recorder = start(Peers([0, 0]), save_clock=watch.save_clock)
    second, their_recorder = start(Peers([0, 0], rank=1), save_clock=late.save_clock)
    late.seconds = 2e6  # the clock of another rank does not matter
    for hook, each in ((first, recorder), (second, their_recorder)):
        hook.on_step(build_step(1), each.control)
        assert not each.control.checkpoint_requested
    watch.seconds = 60.0
    first.on_step(build_step(2), recorder.control)
    peer, told = start(Peers([0, 1], rank=1), save_clock=Watch(10.0).save_clock)
    peer.on_step(build_step(2), told.control)
    assert recorder.control.checkpoint_requested
    assert told.control.checkpoint_requested
    assert recorder.control.stop_reason is None


def test_no_save_by_time_begins_where_the_last_save_of_the_allocation_would_not_fit_after_it() -> None:
    watch = Watch(10.0)
    walltime = WallTime(1000.0, reserve_seconds=10.0, now=lambda: watch.seconds)
    walltime.record_duration("save", 100.0)
    hook, recorder = start(alone(), walltime=walltime, save_clock=watch.save_clock)
    watch.seconds = 850.0  # more than a save, less than two
    hook.on_step(build_step(1), recorder.control)
    assert not recorder.control.checkpoint_requested
    assert recorder.control.stop_reason is None


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
