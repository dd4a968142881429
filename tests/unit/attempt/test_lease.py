"""One writer of a run folder, whatever is killed, stopped or started at the same moment. Files and processes are real."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dstrain.attempt.lease import Lease, LeaseHeld, LeaseLost, acquire
from dstrain.cluster.processes import HIDDEN, this_process
from dstrain.run_folder.claims import Claim, is_superseded, read_claims
from tests.unit.attempt.lease_cases import STALE_SECONDS, claim_path, elsewhere, make_old, names, take

WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from dstrain.cluster.processes import this_process
from dstrain.attempt.lease import LeaseHeld, LeaseLost, acquire
holder = this_process()
holder = replace(holder, pid_namespace=sys.argv[2] or holder.pid_namespace)
print("ready", flush=True)
sys.stdin.readline()
try:
    lease = acquire(Path(sys.argv[1]), holder=holder, stale_seconds=60.0)
    print(lease.number, flush=True)
except LeaseHeld as error:
    sys.exit(f"held: {error}")
for command in sys.stdin:
    try:
        getattr(lease, command.strip())()
        print("done", flush=True)
    except LeaseLost as error:
        print(f"lost: {error}", flush=True)
"""


class Writer:
    """Another process that acquires the lease on command."""

    def __init__(self, folder: Path, *, pid_namespace: str = "") -> None:
        command = [sys.executable, "-c", WRITER, str(folder), pid_namespace]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self.answer() == "ready"

    def send(self, command: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def ask(self, command: str) -> str:
        self.send(command)
        return self.answer()


@pytest.fixture
def start_writer() -> Iterator[Callable[..., Writer]]:
    """Starts writers and ends them after the test in any case."""
    writers: list[Writer] = []

    def start(folder: Path, *, pid_namespace: str = "") -> Writer:
        writers.append(Writer(folder, pid_namespace=pid_namespace))
        return writers[-1]

    yield start
    for writer in writers:
        writer.process.kill()
        writer.process.communicate()


# --- a folder without a holder


def test_a_new_run_folder_is_created_and_held_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "new"
    me = this_process()
    lease = take(folder, holder=me)
    assert lease.number == 1
    assert read_claims(folder) == [Claim(number=1, holder=me)]
    lease.check()
    assert names(folder) == ["00000001.json"]


def test_a_released_lease_is_acquired_at_once_and_its_claim_stays(tmp_path: Path) -> None:
    first = take(tmp_path)
    first.set_base(0)
    first.release()
    second = take(tmp_path, holder=elsewhere())
    second.set_base(400)
    claims = read_claims(tmp_path)
    assert [(claim.number, claim.base_step, claim.released) for claim in claims] == [(1, 0, True), (2, 400, False)]


def test_every_renewal_is_visible_and_leaves_no_files(tmp_path: Path) -> None:
    lease = take(tmp_path)
    lease.set_base(7)
    beats = []
    for _ in range(3):
        lease.renew()
        (claim,) = read_claims(tmp_path)
        beats.append(claim.beat)
        assert claim.base_step == 7
    assert beats == sorted(set(beats))
    assert names(tmp_path) == ["00000001.json"]


def test_a_renewal_after_the_release_does_not_take_the_lease_back(tmp_path: Path) -> None:
    lease = take(tmp_path)
    lease.release()
    lease.renew()
    assert read_claims(tmp_path)[0].released
    take(tmp_path, holder=elsewhere())
    lease.renew()  # nothing is held any more, so this has no effect


def test_a_folder_never_written_has_no_claims(tmp_path: Path) -> None:
    assert read_claims(tmp_path) == []
    assert read_claims(tmp_path / "absent") == []


# --- a holder whose process can be checked


def test_a_living_process_is_named_with_the_way_out(tmp_path: Path, start_writer: Callable[..., Writer]) -> None:
    writer = start_writer(tmp_path)
    assert writer.ask("acquire") == "1"
    with pytest.raises(LeaseHeld) as refused:
        take(tmp_path)
    holder = read_claims(tmp_path)[0].holder
    assert holder
    assert holder.pid == writer.process.pid
    for part in (str(tmp_path), holder.host, holder.since, f"kill {holder.pid}", "wait for it", "another output_dir"):
        assert part in str(refused.value)
    assert writer.ask("check") == "done"
    assert names(tmp_path) == ["00000001.json"]


@pytest.mark.parametrize("is_waited_for", [True, False])
def test_the_lease_of_a_killed_process_is_acquired_at_once(
    is_waited_for: bool, tmp_path: Path, start_writer: Callable[..., Writer]
) -> None:
    writer = start_writer(tmp_path)
    assert writer.ask("acquire") == "1"
    writer.process.kill()
    os.waitid(os.P_PID, writer.process.pid, os.WEXITED | os.WNOWAIT)
    if is_waited_for:
        writer.process.wait()
    assert take(tmp_path).number == 2


def test_another_process_with_the_same_process_id_does_not_hold_the_lease(tmp_path: Path) -> None:
    me = this_process()
    take(tmp_path, holder=replace(me, process_start=me.process_start - 1))
    assert take(tmp_path).number == 2


def test_a_second_run_of_the_same_process_is_refused(tmp_path: Path) -> None:
    take(tmp_path)
    with pytest.raises(LeaseHeld):
        take(tmp_path)


def test_a_process_that_cannot_be_checked_is_judged_by_its_file(tmp_path: Path) -> None:
    lease = take(tmp_path)

    def take_hidden(sleep: Callable[[float], None]) -> Lease:
        me = replace(this_process(), pid=1)
        return acquire(tmp_path, holder=me, stale_seconds=STALE_SECONDS, process_start=lambda pid: HIDDEN, sleep=sleep)

    with pytest.raises(LeaseHeld):
        take_hidden(lambda seconds: lease.renew())
    assert take_hidden(lambda seconds: None).number == 2


# --- a holder on another host


def test_a_file_that_is_old_by_the_file_systems_own_clock_is_stale_at_once(tmp_path: Path) -> None:
    take(tmp_path, holder=elsewhere())
    make_old(claim_path(tmp_path, 1), seconds=STALE_SECONDS + 5)
    assert take(tmp_path).number == 2
    assert names(tmp_path) == ["00000001.json", "00000002.json"]


@pytest.mark.parametrize("age_seconds", [0.0, STALE_SECONDS - 5, -1e6])
def test_a_younger_file_is_watched_for_the_full_time_before_it_counts_as_stale(
    age_seconds: float, tmp_path: Path
) -> None:
    take(tmp_path, holder=elsewhere())
    make_old(claim_path(tmp_path, 1), seconds=age_seconds)
    slept: list[float] = []
    assert take(tmp_path, sleep=slept.append).number == 2
    assert sum(slept) >= STALE_SECONDS
    assert max(slept) <= STALE_SECONDS / 10


@pytest.mark.parametrize("skew_seconds", [-1e6, 1e6])
def test_the_clock_of_this_host_does_not_matter(
    skew_seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + skew_seconds)
    lease = take(tmp_path, holder=elsewhere())
    with pytest.raises(LeaseHeld):
        take(tmp_path, sleep=lambda seconds: lease.renew())
    make_old(claim_path(tmp_path, 1), seconds=STALE_SECONDS + 5)
    assert take(tmp_path).number == 2


def test_a_renewal_at_the_last_moment_is_noticed(tmp_path: Path) -> None:
    far = elsewhere()
    lease = take(tmp_path, holder=far)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if sum(slept) >= STALE_SECONDS:
            lease.renew()

    with pytest.raises(LeaseHeld, match=rf"kill {far.pid} on far"):
        take(tmp_path, sleep=sleep)
    lease.check()


def test_a_refusal_names_the_way_to_cancel_the_job_that_holds_the_lease(tmp_path: Path) -> None:
    acquire(tmp_path, holder=this_process(), stale_seconds=STALE_SECONDS, job="cluster/12")
    with pytest.raises(
        LeaseHeld, match=r"cancel its job \(scancel 12; for a member of a sweep the id that squeue --jobs 12 shows"
    ) as held:
        take(tmp_path)
    assert "kill" not in str(held.value)


def test_a_release_ends_the_waiting(tmp_path: Path) -> None:
    lease = take(tmp_path, holder=elsewhere())
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        lease.release()

    assert take(tmp_path, sleep=sleep).number == 2
    assert len(slept) == 1


def test_a_process_that_replaced_a_stale_lease_first_is_judged_as_well(tmp_path: Path) -> None:
    take(tmp_path, holder=elsewhere())
    faster: list[Lease] = []

    def sleep(seconds: float) -> None:
        if not faster:
            make_old(claim_path(tmp_path, 1), seconds=STALE_SECONDS + 5)
            faster.append(take(tmp_path, holder=elsewhere("faster")))
        faster[0].renew()

    with pytest.raises(LeaseHeld, match="on faster"):
        take(tmp_path, sleep=sleep)
    faster[0].check()


def test_containers_on_one_host_do_not_mistake_each_others_process_ids(tmp_path: Path) -> None:
    # same process id and start time as this living process, but in another namespace: unknown until its file is watched
    take(tmp_path, holder=replace(this_process(), pid_namespace="pid:[1] same boot"))
    assert take(tmp_path, sleep=lambda seconds: None).number == 2


# --- a writer that was replaced


def test_every_method_of_a_replaced_writer_names_its_successor(tmp_path: Path) -> None:
    old = take(tmp_path)
    new = take(tmp_path, holder=elsewhere(), sleep=lambda seconds: None)
    before = [path.read_bytes() for path in sorted((tmp_path / "lease").iterdir())]
    for act in (old.renew, old.check, lambda: old.set_base(5)):
        with pytest.raises(LeaseLost, match=r"lease 1 was lost to lease 2 of process \d+ on far"):
            act()
    old.release()
    assert [path.read_bytes() for path in sorted((tmp_path / "lease").iterdir())] == before
    new.check()


def test_a_process_that_was_suspended_while_it_was_replaced_notices(
    tmp_path: Path, start_writer: Callable[..., Writer]
) -> None:
    writer = start_writer(tmp_path, pid_namespace="pid:[1] far")
    assert writer.ask("acquire") == "1"
    assert writer.ask("renew") == "done"
    writer.process.send_signal(signal.SIGSTOP)
    writer.send("renew")
    make_old(claim_path(tmp_path, 1), seconds=STALE_SECONDS + 5)
    lease = take(tmp_path)
    lease.set_base(400)
    content = claim_path(tmp_path, 2).read_bytes()
    writer.process.send_signal(signal.SIGCONT)
    assert writer.answer().startswith("lost: ")
    assert f"process {os.getpid()}" in writer.ask("check")
    assert claim_path(tmp_path, 2).read_bytes() == content
    lease.check()


def test_a_successor_that_claims_the_folder_while_the_base_is_written_stops_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = take(tmp_path)
    rename = Path.replace

    def overtaken(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", rename)
        take(tmp_path, holder=elsewhere(), sleep=lambda seconds: None)
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", overtaken)
    with pytest.raises(LeaseLost, match="lease 2"):
        old.set_base(400)


def test_a_lease_whose_folder_is_removed_is_lost(tmp_path: Path) -> None:
    lease = take(tmp_path)
    claim_path(tmp_path, 1).unlink()
    with pytest.raises(LeaseLost, match=r"00000001\.json was removed"):
        lease.renew()
    take(tmp_path, holder=elsewhere())  # counts from 1 again: the same number
    with pytest.raises(LeaseLost, match="another lease 1 of process"):
        lease.renew()
    lease.release()
    assert not read_claims(tmp_path)[0].released


# --- several at the same moment


def test_exactly_one_of_eight_processes_acquires_the_lease_of_a_dead_one(
    tmp_path: Path, start_writer: Callable[..., Writer]
) -> None:
    me = this_process()
    take(tmp_path, holder=replace(me, process_start=me.process_start - 1))
    writers = [start_writer(tmp_path) for _ in range(8)]
    for writer in writers:
        writer.send("acquire")
    answers = [writer.answer() for writer in writers]
    assert sorted(answers) == [""] * 7 + ["2"]
    winner = writers[answers.index("2")]
    for writer in writers:
        if writer is not winner:
            _, refused = writer.process.communicate()
            assert f"held: {tmp_path}" in refused
            assert f"kill {winner.process.pid} on {me.host}" in refused
    assert names(tmp_path) == ["00000001.json", "00000002.json"]


@contextmanager
def entered(door: threading.Lock) -> Iterator[bool]:
    """Whether no other thread holds the lease."""
    alone = door.acquire(blocking=False)
    yield alone
    if alone:
        door.release()


def test_two_of_eight_threads_never_hold_the_lease_at_the_same_time(tmp_path: Path) -> None:
    me, inside, numbers = this_process(), threading.Lock(), list[int]()
    start = threading.Barrier(8)

    def work() -> None:
        turns = 4
        start.wait()
        while turns:
            try:
                lease = take(tmp_path, holder=me)
            except LeaseHeld:
                continue
            turns -= 1
            try:
                with entered(inside) as alone:
                    lease.check()
                    numbers.append(lease.number if alone else -1)
            finally:
                lease.release()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers == list(range(1, 33))
    assert [claim.number for claim in read_claims(tmp_path)] == numbers


def test_renewals_in_one_thread_lose_nothing_that_another_thread_records(tmp_path: Path) -> None:
    lease = take(tmp_path)
    done = threading.Event()

    def renew() -> None:
        while not done.is_set():
            lease.renew()

    thread = threading.Thread(target=renew)
    thread.start()
    for step in range(50):
        lease.set_base(step)
        assert read_claims(tmp_path)[0].base_step == step
    lease.release()
    done.set()
    thread.join()
    assert (read_claims(tmp_path)[0].base_step, read_claims(tmp_path)[0].released) == (49, True)


# --- late checkpoints


def test_a_late_checkpoint_is_recognised_from_the_files_alone(tmp_path: Path) -> None:
    first = take(tmp_path)
    first.set_base(0)
    second = take(tmp_path, holder=elsewhere(), sleep=lambda seconds: None)
    second.set_base(400)
    with pytest.raises(LeaseLost):
        first.check()
    claims = read_claims(tmp_path)
    assert is_superseded(claims, lease=first.number, step=500)
    assert not is_superseded(claims, lease=first.number, step=400)
    assert not is_superseded(claims, lease=second.number, step=450)
