"""Ranks that hang, stop, hold the GIL or die are noticed by their neighbours; real processes and real signals."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from dstrain.attempt import hangs
from dstrain.attempt import watchdog as watchdog_module
from dstrain.attempt.rank_records import PHASE_LIMITS, Phases, RankRecord, ranks_dir, read_rank_records, record_path
from dstrain.attempt.watchdog import (
    Lost,
    Renewal,
    Timing,
    count_oom_kills,
    describe_lost,
    find_hang,
    find_lost,
    start_watchdog,
)
from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.cluster.processes import Process, process_start, read_process
from dstrain.run_folder.atomic import open_new

PATIENCE_SECONDS = 60.0
ATTEMPT = 7
NO_LIMITS = dict.fromkeys(PHASE_LIMITS.values(), 0.0)
LIMITS = {"set_up": 100.0, "step": 10.0, "evaluation": 0.0, "save": 30.0}

RANK = """
import ctypes, json, os, signal, sys, time
from pathlib import Path
from dstrain.attempt import watchdog
from dstrain.attempt.rank_records import PHASE_LIMITS, Phases, ranks_dir

watchdog.SUSPENDED_SECONDS = 1.0
watchdog.FLUSH_SECONDS = 0.05
run_dir, rank, behaviour, limit = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
phases = Phases(ranks_dir(run_dir), rank=rank, attempt=7)

def work():
    while not (run_dir / "go").exists():
        phases.enter("step", step=12)
        time.sleep(0.01)

def wait_for_others():
    phases.enter("step", step=12)
    while not (run_dir / "go").exists():
        time.sleep(0.01)

def stop():
    phases.enter("step", step=11)
    phases.enter("write part", track="save")
    os.kill(os.getpid(), signal.SIGSTOP)

def hold_the_gil():
    phases.enter("step", step=11)
    ctypes.PyDLL(None).read(os.pipe()[0], ctypes.create_string_buffer(1), 1)

def leave():
    time.sleep(0.2)

limits = dict.fromkeys(PHASE_LIMITS.values(), 0.0) | {"step": limit}
dog = watchdog.start_watchdog(
    phases,
    run_dir=run_dir,
    local_ranks=range(int(sys.argv[5])),
    limits=limits,
    timing=watchdog.Timing(check_seconds=0.05, grace_seconds=2.0),
)
globals()[behaviour]()
dog.stop()
phases.end("finished")
"""


class Ranks:
    """Processes of one run on this host."""

    def __init__(self, run_dir: Path, *, num_ranks: int) -> None:
        self.run_dir, self.num_ranks = run_dir, num_ranks
        self.processes: dict[int, subprocess.Popen[str]] = {}

    def start(self, rank: int, behaviour: str, *, limit: float = 0.0, step: int | None = 12) -> None:
        """Start a rank and wait until it is at its step."""
        arguments = [str(self.run_dir), str(rank), behaviour, str(limit), str(self.num_ranks)]
        self.processes[rank] = subprocess.Popen(
            [sys.executable, "-c", RANK, *arguments], stderr=subprocess.PIPE, text=True
        )
        wait_until(lambda: [record.step for record in self.records(rank)] == [step])

    def records(self, rank: int) -> list[RankRecord]:
        return read_rank_records(ranks_dir(self.run_dir), ranks=[rank])

    def state(self, rank: int) -> str:
        process = read_process(self.processes[rank].pid)
        return process.state if process else ""

    def end(self, rank: int) -> tuple[int, str]:
        """Exit code and standard error of a rank that ends by itself."""
        _, errors = self.processes[rank].communicate(timeout=PATIENCE_SECONDS)
        return self.processes[rank].returncode, errors

    def dump(self, rank: int) -> str:
        return (self.run_dir / "hangs" / str(ATTEMPT) / f"rank-{rank:05d}.txt").read_text()


@pytest.fixture
def start_ranks(tmp_path: Path) -> Iterator[Callable[[int], Ranks]]:
    started: list[Ranks] = []

    def start(num_ranks: int) -> Ranks:
        started.append(Ranks(tmp_path, num_ranks=num_ranks))
        return started[-1]

    yield start
    for ranks in started:
        for process in ranks.processes.values():
            process.kill()
            process.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("quiet", "found"),
    [
        ({}, None),
        ({"main": ("step", 10.0)}, None),
        ({"main": ("step", 10.5)}, ("main", "step", 10.5)),
        ({"main": ("set-up", 99.0), "save": ("write part", 29.0)}, None),
        ({"main": ("step", 1.0), "save": ("write part", 31.0)}, ("save", "write part", 31.0)),
        ({"main": ("export", 31.0)}, ("main", "export", 31.0)),
        ({"main": ("step", 13.0), "save": ("manifest", 32.0)}, ("main", "step", 13.0)),
        ({"main": ("evaluation", 1e9)}, None),
    ],
)
def test_a_track_beyond_its_limit_hangs_and_zero_means_no_limit(
    quiet: dict[str, tuple[str, float]], found: tuple[str, str, float] | None
) -> None:
    assert find_hang(quiet, LIMITS) == found


@pytest.fixture
def own(tmp_path: Path) -> RankRecord:
    return Phases(tmp_path, rank=0, attempt=ATTEMPT).record()


def test_a_neighbour_is_lost_when_its_process_no_longer_exists(own: RankRecord) -> None:
    peer = replace(own, rank=1, pid=500, process_start=9000)
    running = Process(start=9000, state="S", parent=1, exit_status=0)

    def lost(record: RankRecord, process: Process | None) -> bool:
        return find_lost([record], own=own, find_process={500: process}.get) != []

    assert lost(peer, None)
    assert lost(peer, replace(running, start=9001))
    assert lost(peer, replace(running, state="Z", exit_status=9))
    assert not any(lost(peer, replace(running, state=state)) for state in "RSDTt")
    assert not lost(replace(peer, ended="finished"), None)
    assert not lost(replace(peer, attempt=ATTEMPT - 1), None)
    assert not lost(replace(peer, host="elsewhere"), None)
    assert not lost(replace(peer, pid_namespace="of a container"), None)
    assert not lost(replace(peer, rank=0), None)


def test_without_a_process_table_no_rank_counts_as_lost(own: RankRecord) -> None:
    blind = replace(own, pid_namespace="")
    assert find_lost([replace(blind, rank=1)], own=blind, find_process=lambda pid: None) == []


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (9, "it ended by signal 9 (Killed) without giving a reason"),
        (139, "it ended by signal 11 (Segmentation fault) without giving a reason"),
        (3 << 8, "it ended with exit code 3 without giving a reason"),
        (0, "it ended without giving a reason"),
    ],
)
def test_a_lost_rank_is_described_with_everything_that_is_known(status: int, words: str, own: RankRecord) -> None:
    record = replace(
        own, rank=5, pid=500, host="n7", step=40, tracks={"main": "evaluation"}, changed=100.0, heartbeat=103.0
    )
    process = Process(start=record.process_start, state="Z", parent=1, exit_status=status)
    described = describe_lost(Lost(record, process), now=105.0, oom_kills=0)
    assert described == (
        f"lost rank 5 (pid 500 on n7): {words}; phases main 'evaluation', step 40, last progress 5.0 s ago, last heartbeat "
        "2.0 s ago"
    )
    assert "ended without" in describe_lost(Lost(record, None), now=105.0, oom_kills=0)
    assert "ended without" in describe_lost(Lost(record, replace(process, start=1)), now=105.0, oom_kills=0)
    assert "killed 2 process(es)" in describe_lost(Lost(record, process), now=105.0, oom_kills=2)


def test_the_exit_status_of_a_killed_process_is_read_until_its_parent_reaps_it() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        process.kill()
        wait_until(lambda: (found := read_process(process.pid)) is not None and found.state == "Z")
        found = read_process(process.pid)
        assert found is not None
        assert os.waitstatus_to_exitcode(found.exit_status) == -signal.SIGKILL
    assert read_process(process.pid) is None


@pytest.mark.parametrize(
    ("groups", "file", "text", "count"),
    [
        ("0::/job/step\n", "job/step/memory.events", "low 0\noom 4\noom_kill 2\n", 2),
        ("4:memory:/slurm/job_1\n0::/\n", "memory/slurm/job_1/memory.oom_control", "under_oom 0\noom_kill 3\n", 3),
        ("4:memory:/slurm/job_1\n", "memory/slurm/job_1/memory.oom_control", "oom_kill_disable 0\n", 0),
        ("0::/job\n1:name=systemd:/a:b\n", "elsewhere", "", 0),
    ],
)
def test_kills_for_lack_of_memory_are_counted(groups: str, file: str, text: str, count: int, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    assert count_oom_kills(groups, root=tmp_path) == count


@pytest.mark.parametrize(("stopped", "waiting", "working"), [(1, 0, 2), (0, 1, 2), (0, 2, 1)])
def test_when_a_rank_is_stopped_all_end_and_all_have_a_dump(
    stopped: int, waiting: int, working: int, start_ranks: Callable[[int], Ranks]
) -> None:
    ranks = start_ranks(3)
    ranks.start(stopped, "stop", step=11)
    wait_until(lambda: ranks.state(stopped) == "T")
    ranks.start(working, "work")
    ranks.start(waiting, "wait_for_others", limit=0.5)
    code, errors = ranks.end(waiting)
    assert code == EXIT_PREEMPTED
    assert f"hang: rank {waiting} made no progress for" in errors
    assert "in main phase 'step'" in errors
    assert ranks.end(working)[0] == EXIT_PREEMPTED
    assert ranks.end(stopped)[0] == -signal.SIGKILL
    hang = json.loads((ranks.run_dir / "hangs" / str(ATTEMPT) / "hang.json").read_text())
    assert (hang["rank"], hang["track"], hang["phase"]) == (waiting, "main", "step")
    assert "in wait_for_others" in ranks.dump(waiting)
    assert "no progress for" in ranks.dump(waiting)
    assert "in work" in ranks.dump(working)
    dump = ranks.dump(stopped)
    assert f"written by rank {min(waiting, working)}" in dump
    assert f"pid {ranks.processes[stopped].pid}" in dump
    assert "process state T" in dump
    assert "main 'step', save 'write part', step 11, last progress" in dump
    assert "killed with SIGKILL" in dump
    assert "exits with code 85" in str(ranks.records(working)[0].ended)


def test_a_rank_that_holds_the_gil_dumps_its_stacks_and_is_killed(start_ranks: Callable[[int], Ranks]) -> None:
    ranks = start_ranks(2)
    ranks.start(1, "hold_the_gil", step=11)
    ranks.start(0, "wait_for_others", limit=0.5)
    assert ranks.end(0)[0] == EXIT_PREEMPTED
    assert ranks.end(1)[0] == -signal.SIGKILL
    assert "in hold_the_gil" in ranks.dump(1)
    assert "process state S" in ranks.dump(1)


def test_when_a_rank_is_killed_the_others_end_and_name_it(start_ranks: Callable[[int], Ranks]) -> None:
    ranks = start_ranks(2)
    ranks.start(0, "work")
    ranks.start(1, "work")
    ranks.processes[1].kill()
    code, errors = ranks.end(0)
    assert code == EXIT_PREEMPTED
    assert f"lost rank 1 (pid {ranks.processes[1].pid} on" in errors
    assert "by signal 9 (Killed) without giving a reason" in errors
    assert "phases main 'step', save 'idle', step 12" in errors
    assert "exits with code 85" in str(ranks.records(0)[0].ended)
    assert not (ranks.run_dir / "hangs").exists()


def test_a_rank_that_records_why_it_ends_is_not_lost(start_ranks: Callable[[int], Ranks]) -> None:
    ranks = start_ranks(2)
    ranks.start(0, "work")
    ranks.start(1, "leave", step=None)
    assert ranks.end(1) == (0, "")
    # long enough for its watchdog to check many times
    beats = ranks.records(0)[0].beats
    wait_until(lambda: ranks.records(0)[0].beats > beats + 100)
    (ranks.run_dir / "go").touch()
    assert ranks.end(0) == (0, "")


def test_a_rank_whose_process_was_suspended_has_not_hung(start_ranks: Callable[[int], Ranks]) -> None:
    ranks = start_ranks(1)
    ranks.start(0, "wait_for_others", limit=3.0)
    ranks.processes[0].send_signal(signal.SIGSTOP)
    wait_until(lambda: ranks.state(0) == "T")
    time.sleep(3.5)
    stopped = time.time()
    ranks.processes[0].send_signal(signal.SIGCONT)
    # its watchdog has checked since it was resumed
    wait_until(lambda: ranks.records(0)[0].heartbeat > stopped + 0.5)
    (ranks.run_dir / "go").touch()
    assert ranks.end(0) == (0, "")


class Ends(queue.SimpleQueue[tuple[int, str]]):
    """Raised instead of ending the test's own process."""

    def __call__(self, code: int, message: str) -> None:
        self.put((code, message))

    def wait(self) -> tuple[int, str]:
        return self.get(timeout=PATIENCE_SECONDS)


class Watched:
    """This process as rank 0, with a watchdog."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.ends = run_dir, Ends()
        self.phases = Phases(ranks_dir(run_dir), rank=0, attempt=ATTEMPT)
        self.stack = contextlib.ExitStack()

    @property
    def hang_dir(self) -> Path:
        return self.run_dir / "hangs" / str(ATTEMPT)

    def start(
        self,
        *,
        limit: float = 0.0,
        num_local_ranks: int = 1,
        renew: Callable[[], None] | None = None,
        on_lost: Callable[[Exception], None] = print,
    ) -> None:
        started = start_watchdog(
            self.phases,
            run_dir=self.run_dir,
            local_ranks=range(num_local_ranks),
            limits=NO_LIMITS | {"step": limit},
            renewal=Renewal(renew, every_seconds=0.02, on_lost=on_lost) if renew else None,
            end=self.ends,
            timing=Timing(check_seconds=0.01, grace_seconds=0.2),
        )
        self.stack.callback(started.stop)

    def pretend(self, rank: int, **values: object) -> None:
        """Write the record of another rank."""
        Phases(ranks_dir(self.run_dir), rank=rank, attempt=ATTEMPT).close()
        path = record_path(ranks_dir(self.run_dir), rank=rank)
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    def announce(self, **values: object) -> None:
        """Write the announcement of a hang."""
        self.hang_dir.mkdir(parents=True)
        hang = {"rank": 3, "track": "save", "phase": "rename", "seconds": 1.0, "noticed": time.time()} | values
        (self.hang_dir / "hang.json").write_text(json.dumps(hang))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    rank = Watched(tmp_path)
    with rank.stack:
        yield rank


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_a_hang_that_another_rank_announced_ends_this_rank_too(watched: Watched) -> None:
    watched.start()
    watched.announce()
    code, message = watched.ends.wait()
    assert code == EXIT_PREEMPTED
    assert "hang: rank 3 made no progress for 1.0 s in save phase 'rename'" in message
    assert (watched.hang_dir / "rank-00000.txt").is_file()


@pytest.mark.parametrize("noticed", [0.0, None])
def test_an_announcement_of_another_run_or_a_torn_one_is_ignored(noticed: float | None, watched: Watched) -> None:
    watched.announce(noticed=noticed)
    (watched.hang_dir / "rank-00000.txt").write_text("of another run")
    renewals: queue.SimpleQueue[None] = queue.SimpleQueue()
    watched.start(renew=lambda: renewals.put(None))
    assert not (watched.hang_dir / "rank-00000.txt").exists()
    for _ in range(10):
        renewals.get(timeout=PATIENCE_SECONDS)
    assert watched.ends.empty()


def test_ranks_of_other_hosts_are_described_from_their_records_and_left_alone(
    watched: Watched, sleeper: subprocess.Popen[bytes]
) -> None:
    process = {"pid": sleeper.pid, "process_start": process_start(sleeper.pid)}
    watched.pretend(1, host="n2", step=8, **process)
    watched.pretend(2, pid_namespace="of a container", **process)
    watched.pretend(3, host="n3", attempt=ATTEMPT - 1, **process)
    watched.phases.enter("step", step=9)
    watched.start(limit=0.05, num_local_ranks=3)
    watched.ends.wait()
    assert sleeper.poll() is None
    for rank in (1, 2):
        assert (
            "it has no record in attempt 7 with a process that rank 0 can see"
            in (watched.hang_dir / f"rank-{rank:05d}.txt").read_text()
        )


def test_the_rank_that_noticed_describes_the_ranks_of_other_hosts(watched: Watched) -> None:
    watched.pretend(1, host="n2", step=8)
    watched.pretend(2, host="n2", attempt=ATTEMPT - 1)
    watched.pretend(3, host="n2")
    watched.hang_dir.mkdir(parents=True)
    (watched.hang_dir / "rank-00003.txt").write_text("its own stacks")
    watched.phases.enter("step", step=9)
    watched.start(limit=0.05)
    watched.ends.wait()
    names = sorted(path.name for path in watched.hang_dir.iterdir())
    assert names == ["hang.json", "rank-00000.txt", "rank-00001.txt", "rank-00003.txt"]
    dump = (watched.hang_dir / "rank-00001.txt").read_text()
    assert "on n2, has written no stacks yet; written by rank 0" in dump
    assert "step 8, last progress" in dump
    assert (watched.hang_dir / "rank-00003.txt").read_text() == "its own stacks"


def test_a_later_process_with_the_id_of_a_rank_is_not_killed(
    watched: Watched, sleeper: subprocess.Popen[bytes]
) -> None:
    watched.pretend(1, pid=sleeper.pid, process_start=1, ended="finished")
    watched.phases.enter("step", step=9)
    watched.start(limit=0.05, num_local_ranks=2)
    watched.ends.wait()
    assert sleeper.poll() is None
    dump = (watched.hang_dir / "rank-00001.txt").read_text()
    assert "process gone" in dump
    assert "ended: finished" in dump
    assert "killed with" not in dump


def test_a_file_system_that_never_responds_does_not_keep_a_rank_from_ending(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog_module, "REPORT_SECONDS", 0.1)
    responds = threading.Event()

    def open_when_it_responds(path: Path) -> AbstractContextManager[IO[bytes]]:
        responds.wait()
        return open_new(path)

    monkeypatch.setattr(hangs, "open_new", open_when_it_responds)
    watched.phases.enter("step", step=9)
    watched.start(limit=0.05)
    assert watched.ends.wait()[0] == EXIT_PREEMPTED
    assert not (watched.hang_dir / "rank-00000.txt").exists()
    responds.set()
    wait_until((watched.hang_dir / "rank-00000.txt").exists)


def test_a_lease_is_renewed_repeatedly_even_after_the_file_system_failed(watched: Watched) -> None:
    calls: list[None] = []
    renewals: queue.SimpleQueue[None] = queue.SimpleQueue()

    def renew() -> None:
        calls.append(None)
        if len(calls) == 2:
            raise OSError(116, "Stale file handle")
        renewals.put(None)

    watched.start(renew=renew, on_lost=lambda error: watched.ends(1, str(error)))
    for _ in range(5):
        renewals.get(timeout=PATIENCE_SECONDS)
    assert watched.ends.empty()


def test_a_lost_lease_is_reported_once_and_not_renewed_again(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog_module, "FLUSH_SECONDS", 0.02)
    calls: list[None] = []

    def renew() -> None:
        calls.append(None)
        raise RuntimeError("lease 7 was lost")

    watched.start(renew=renew, on_lost=lambda error: watched.ends(1, str(error)))
    assert watched.ends.wait() == (1, "lease 7 was lost")
    # the watchdog keeps running, long enough to renew many times
    reported = time.time()
    wait_until(lambda: watched.phases.record().heartbeat > reported + 0.5)
    watched.announce()
    assert watched.ends.wait()[0] == EXIT_PREEMPTED
    assert len(calls) == 1


def test_a_watchdog_that_was_stopped_ends_nothing(watched: Watched) -> None:
    watched.start(limit=1.0)
    watched.stack.close()
    watched.announce()
    watched.phases.enter("step", step=9)
    time.sleep(1.2)
    assert watched.ends.empty()
    assert not (watched.hang_dir / "rank-00000.txt").exists()


def test_a_limit_is_required_for_every_class(tmp_path: Path, watched: Watched) -> None:
    with pytest.raises(AssertionError):
        start_watchdog(watched.phases, run_dir=tmp_path, local_ranks=range(1), limits={"step": 1.0})


@pytest.mark.parametrize(("log", "said"), [("free", "the reason"), ("stuck", "")])
def test_a_process_ends_with_its_code_though_its_log_is_stuck(log: str, said: str) -> None:
    code = """
import logging, sys, threading
from dstrain.attempt import watchdog
watchdog.REPORT_SECONDS = 0.2
stuck = logging.StreamHandler(sys.stderr)
logging.getLogger().addHandler(stuck)
if sys.argv[1] == "stuck":
    stuck.acquire()
threading.Thread(target=watchdog.end_process, args=(85, "the reason")).start()
threading.Event().wait(60)
"""
    command = [sys.executable, "-c", code, log]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS)
    assert (done.returncode, done.stderr.strip()) == (EXIT_PREEMPTED, said)
