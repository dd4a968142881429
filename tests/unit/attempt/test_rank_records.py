"""The records of ranks: what is on disk after every mark and after a kill, and when a drill kills."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from dstrain.attempt.rank_records import (
    PHASE_LIMITS,
    RECORD_BYTES,
    TRACKS,
    Drill,
    Phases,
    RankRecord,
    read_drill,
    read_rank_records,
    record_path,
)
from dstrain.cluster.processes import this_process

DRILLED = """
import sys
from pathlib import Path
from dstrain.attempt.rank_records import Phases, read_drill
drill = read_drill({"DSTRAIN_DRILL": sys.argv[3]})
phases = Phases(Path(sys.argv[1]), rank=int(sys.argv[2]), attempt=1, drill=drill)
for step in range(1, 4):
    phases.enter("step", step=step)
    for part in range(2):
        phases.enter("write part", track="save")
    phases.enter("idle", track="save")
phases.end("finished")
"""


class Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def phases(tmp_path: Path, clock: Clock) -> Phases:
    return Phases(tmp_path, rank=3, attempt=7, now=clock, monotonic=clock)


def on_disk(folder: Path, *, rank: int = 3) -> RankRecord:
    (record,) = read_rank_records(folder, ranks=[rank])
    return record


def run_drilled(folder: Path, *, rank: int, drill: str) -> int:
    command = [sys.executable, "-c", DRILLED, str(folder), str(rank), drill]
    return subprocess.run(command, check=False, timeout=60).returncode


def test_a_rank_has_a_record_before_it_enters_a_phase(phases: Phases, tmp_path: Path) -> None:
    record, own = on_disk(tmp_path), this_process()
    assert record == phases.record()
    assert (record.rank, record.attempt, record.pid, record.host) == (3, 7, os.getpid(), own.host)
    assert (record.process_start, record.pid_namespace) == (own.process_start, own.pid_namespace)
    assert record.tracks == {"main": "set-up", "save": "idle"}
    assert (record.step, record.beats, record.ended) == (None, 0, None)


def test_every_mark_is_on_disk_at_once(phases: Phases, tmp_path: Path, clock: Clock) -> None:
    clock.seconds = 1001.0
    phases.enter("step", step=12)
    clock.seconds = 1002.5
    phases.enter("write part", track="save")
    record = on_disk(tmp_path)
    assert record.tracks == {"main": "step", "save": "write part"}
    assert (record.step, record.beats, record.changed) == (12, 2, 1002.5)
    clock.seconds = 1003.0
    phases.mark_progress()
    assert (on_disk(tmp_path).beats, on_disk(tmp_path).changed) == (3, 1003.0)
    phases.enter("evaluation")
    assert on_disk(tmp_path).step == 12
    clock.seconds = 1004.0
    phases.flush()
    assert (on_disk(tmp_path).heartbeat, on_disk(tmp_path).changed) == (1004.0, 1003.0)
    phases.end("finished")
    assert on_disk(tmp_path).ended == "finished"


@pytest.mark.parametrize("reason", ["", "out of memory", "한국어" * 500, "\0" * 500, "line\n" * 500, "\udc80" * 500])
def test_a_record_keeps_its_size_whatever_the_reason(reason: str, phases: Phases, tmp_path: Path) -> None:
    phases.end(reason)
    assert record_path(tmp_path, rank=3).stat().st_size == RECORD_BYTES
    ended = on_disk(tmp_path).ended
    assert ended is not None
    assert reason.encode(errors="replace").startswith(ended.encode())
    assert len(ended) >= min(len(reason), 80)


def test_the_record_of_an_earlier_attempt_is_replaced(tmp_path: Path) -> None:
    record_path(tmp_path, rank=0).write_text("x" * 5 * RECORD_BYTES)
    Phases(tmp_path, rank=0, attempt=1).end("stopped")
    Phases(tmp_path, rank=0, attempt=2)
    record = on_disk(tmp_path, rank=0)
    assert (record.attempt, record.ended) == (2, None)
    assert record_path(tmp_path, rank=0).stat().st_size == RECORD_BYTES


def test_an_earlier_attempt_that_still_runs_does_not_write_into_the_record_of_the_new_one(tmp_path: Path) -> None:
    old = Phases(tmp_path, rank=0, attempt=1)
    new = Phases(tmp_path, rank=0, attempt=2)
    new.enter("step", step=3)
    old.enter("step", step=9)
    (record,) = read_rank_records(tmp_path)
    assert (record.attempt, record.step) == (2, 3)
    old.close()
    new.close()


def test_quiet_time_is_counted_by_track_and_an_idle_track_is_not_listed(phases: Phases, clock: Clock) -> None:
    phases.enter("step", step=1)
    clock.seconds += 2
    assert phases.quiet_seconds() == {"main": ("step", 2.0)}
    phases.enter("begin", track="save")
    clock.seconds += 3
    assert phases.quiet_seconds() == {"main": ("step", 5.0), "save": ("begin", 3.0)}
    phases.mark_progress()
    assert phases.quiet_seconds() == {"main": ("step", 0.0), "save": ("begin", 3.0)}
    phases.mark_progress(track="save")
    phases.enter("idle", track="save")
    assert phases.quiet_seconds() == {"main": ("step", 0.0)}


def test_waiting_for_a_save_is_progress_while_the_save_makes_progress(phases: Phases, clock: Clock) -> None:
    phases.enter("write part", track="save")
    phases.enter("wait for save")
    clock.seconds += 50
    phases.enter("write part", track="save")
    clock.seconds += 1
    assert phases.quiet_seconds() == {"main": ("wait for save", 1.0), "save": ("write part", 1.0)}
    phases.enter("step", step=2)
    clock.seconds += 50
    phases.enter("write part", track="save")
    assert phases.quiet_seconds()["main"] == ("step", 50.0)


def test_discounted_time_is_not_quiet_and_never_becomes_negative(phases: Phases, clock: Clock) -> None:
    phases.enter("step", step=1)
    clock.seconds += 10
    phases.discount_suspension(8)
    assert phases.quiet_seconds() == {"main": ("step", 2.0)}
    phases.discount_suspension(100)
    clock.seconds += 1
    assert phases.quiet_seconds() == {"main": ("step", 1.0)}


@pytest.mark.parametrize(("phase", "track"), [("idle", "main"), ("step", "save"), ("lunch", "main")])
def test_a_phase_of_another_track_is_a_programming_error(phase: str, track: str, phases: Phases) -> None:
    with pytest.raises(AssertionError):
        phases.enter(phase, track=track)


def test_every_phase_has_a_limit_and_belongs_to_one_track() -> None:
    known = [phase for names in TRACKS.values() for phase in names]
    assert sorted(known) == sorted(PHASE_LIMITS)
    assert len(set(known)) == len(known)
    assert set(PHASE_LIMITS.values()) == {"set_up", "step", "evaluation", "save"}


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Makes threads switch as often as possible; otherwise a missing lock would show only once in a thousand runs."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_threads_that_mark_at_once_leave_a_complete_record(tmp_path: Path) -> None:
    phases = Phases(tmp_path, rank=3, attempt=1)
    rounds = 2000
    done = threading.Event()
    failed: list[BaseException] = []

    def train() -> None:
        for step in range(rounds):
            phases.enter("step", step=step)

    def save() -> None:
        for _ in range(rounds):
            phases.enter("write part", track="save")
            phases.mark_progress(track="save")

    def read() -> None:
        while not done.is_set():
            try:
                assert {record.rank for record in read_rank_records(tmp_path)} <= {3}
                assert phases.quiet_seconds()
            except BaseException as error:
                failed.append(error)
                return

    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=train), threading.Thread(target=save)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert failed == []
    record = on_disk(tmp_path)
    assert record == phases.record()
    assert (record.beats, record.step) == (3 * rounds, rounds - 1)
    assert record.tracks == {"main": "step", "save": "write part"}


def test_a_slow_write_neither_undoes_a_later_one_nor_keeps_the_watchdog_waiting(
    phases: Phases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite
    started, answered, overtaken = threading.Event(), threading.Event(), threading.Event()
    in_time: list[bool] = []

    def write_slowly(descriptor: int, content: bytes, offset: int) -> int:
        if not started.is_set():
            started.set()
            in_time.append(answered.wait(20))
            # times out if writes keep their order
            overtaken.wait(0.5)
            return write(descriptor, content, offset)
        written = write(descriptor, content, offset)
        overtaken.set()
        return written

    monkeypatch.setattr(os, "pwrite", write_slowly)
    slow = threading.Thread(target=phases.enter, args=("step",), kwargs={"step": 1})
    slow.start()
    started.wait()
    assert phases.quiet_seconds() == {"main": ("step", 0.0)}
    answered.set()
    phases.enter("evaluation", step=2)
    slow.join()
    assert in_time == [True]
    assert on_disk(tmp_path) == phases.record()
    assert on_disk(tmp_path).step == 2


def test_after_closing_nothing_is_written_to_a_file_that_reuses_the_descriptor(phases: Phases, tmp_path: Path) -> None:
    before = on_disk(tmp_path)
    phases.close()
    with (tmp_path / "other").open("wb") as other:
        phases.enter("step", step=1)
        phases.flush()
        other.flush()
        assert os.fstat(other.fileno()).st_size == 0
    phases.close()
    assert on_disk(tmp_path) == before
    assert phases.record().step == 1


def test_a_record_that_cannot_be_written_does_not_stop_training(
    phases: Phases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(descriptor: int, content: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", fail)
        phases.enter("step", step=1)
    assert "rank 3 cannot record its phase" in caplog.text
    phases.mark_progress()
    assert on_disk(tmp_path).step == 1


def test_only_the_requested_records_are_read_in_rank_order(tmp_path: Path) -> None:
    for rank in (11, 2, 0):
        Phases(tmp_path, rank=rank, attempt=1)
    assert [record.rank for record in read_rank_records(tmp_path)] == [0, 2, 11]
    assert [record.rank for record in read_rank_records(tmp_path, ranks=range(1, 3))] == [2]
    assert read_rank_records(tmp_path / "nowhere") == []


def without(values: dict[str, object], key: str) -> bytes:
    return json.dumps({name: value for name, value in values.items() if name != key}).encode()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole, values: b"",
        lambda whole, values: whole[:200],
        lambda whole, values: whole[:200] + bytes(RECORD_BYTES - 200),
        lambda whole, values: whole[100:] + whole[:100],
        lambda whole, values: b"\xff\xfe" * 512,
        lambda whole, values: b"[1, 2]",
        lambda whole, values: without(values, "pid"),
        lambda whole, values: json.dumps(values | {"pid": "many"}).encode(),
        lambda whole, values: json.dumps(values | {"tracks": ["step"]}).encode(),
        lambda whole, values: json.dumps(values | {"changed": None}).encode(),
    ],
)
def test_a_malformed_record_is_skipped(spoil: Callable[[bytes, dict[str, object]], bytes], tmp_path: Path) -> None:
    for rank in range(3):
        Phases(tmp_path, rank=rank, attempt=1)
    path = record_path(tmp_path, rank=1)
    whole = path.read_bytes()
    path.write_bytes(spoil(whole, json.loads(whole)))
    (tmp_path / "rank-00007.json").mkdir()
    assert [record.rank for record in read_rank_records(tmp_path)] == [0, 2]
    assert read_rank_records(tmp_path, ranks=[1, 7]) == []


@pytest.mark.parametrize(
    ("value", "drill"),
    [
        ("kill:step:1", Drill("step", occurrence=1, rank=None)),
        ("kill:write part:2:rank=1", Drill("write part", occurrence=2, rank=1)),
        ("kill:set-up:10:rank=0", Drill("set-up", occurrence=10, rank=0)),
    ],
)
def test_a_drill_is_read_from_the_environment(value: str, drill: Drill) -> None:
    assert read_drill({"DSTRAIN_DRILL": value}) == drill


@pytest.mark.parametrize("environment", [{}, {"DSTRAIN_DRILL": ""}])
def test_without_the_variable_there_is_no_drill(environment: dict[str, str]) -> None:
    assert read_drill(environment) is None


@pytest.mark.parametrize(
    "value",
    "kill|step:1|kill:step|kill:step:0|kill:step:-1|kill:step:²|kill:step:1:|kill:step:1:1|kill:step:1:rank=|"
    "kill:step:1:rank=-1|kill:step:1:rank=1:x|stop:step:1|kill:lunch:1|kill:write_part:1".split("|"),
)
def test_a_malformed_drill_is_refused_with_the_expected_form(value: str) -> None:
    with pytest.raises(
        ValueError, match=r"DSTRAIN_DRILL must be kill:PHASE:OCCURRENCE .* write part, .*; found"
    ) as refusal:
        read_drill({"DSTRAIN_DRILL": value})
    assert str(refusal.value).endswith(repr(value))


@pytest.mark.parametrize(
    ("drill", "step", "beats", "tracks"),
    [
        ("kill:step:1", 1, 1, {"main": "step", "save": "idle"}),
        ("kill:step:3:rank=0", 3, 9, {"main": "step", "save": "idle"}),
        ("kill:write part:1", 1, 2, {"main": "step", "save": "write part"}),
        ("kill:write part:4:rank=0", 2, 7, {"main": "step", "save": "write part"}),
        ("kill:idle:2", 2, 8, {"main": "step", "save": "idle"}),
    ],
)
def test_a_drill_kills_at_its_occurrence_and_leaves_the_phase_on_record(
    drill: str, step: int, beats: int, tracks: dict[str, str], tmp_path: Path
) -> None:
    assert run_drilled(tmp_path, rank=0, drill=drill) == -signal.SIGKILL
    record = on_disk(tmp_path, rank=0)
    assert (record.step, record.beats, record.tracks, record.ended) == (step, beats, tracks, None)


@pytest.mark.parametrize("drill", ["kill:step:2:rank=0", "kill:step:4", "kill:export:1"])
def test_a_drill_does_not_affect_other_ranks_or_later_occurrences(drill: str, tmp_path: Path) -> None:
    assert run_drilled(tmp_path, rank=1, drill=drill) == 0
    assert on_disk(tmp_path, rank=1).ended == "finished"


def test_a_record_is_json_that_other_tools_read(phases: Phases, tmp_path: Path) -> None:
    phases.enter("step", step=5)
    values = json.loads(record_path(tmp_path, rank=3).read_text())
    assert values == asdict(phases.record())
