"""Ends a rank that hangs, or that lost another rank on its host. Knows phases and their time limits, not what is computed.

Every rank has two daemon threads. The judge uses memory only, so it can end a rank whose file system hangs. The scout reads
and writes the run folder. The rank that notices a hang announces it in the run folder, which the others check every second (on
NFS another host may see it up to a minute later, because of its attribute cache).

Neither thread runs in a rank that is stopped, in uninterruptible sleep, or in C code that holds the GIL. The other ranks wait
for it, so they soon hang themselves. One on the same host then sends it a signal, on which faulthandler dumps its stacks without
the GIL, records its process state, and kills it. If it is the only rank on its host, its launcher has to kill it after the ranks
on other hosts have ended. If it is the only rank of the run, the hang is not noticed.
"""

import faulthandler
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dstrain.attempt.hangs import (
    STACKS_SIGNAL,
    Hang,
    Scene,
    describe_hang,
    describe_record,
    is_neighbour,
    is_running,
    load_hang,
    remove_leftovers,
    report_hang,
)
from dstrain.attempt.rank_records import PHASE_LIMITS, Phases, RankRecord, ranks_dir, read_rank_records
from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.cluster.processes import Process, read_process

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
GRACE_SECONDS = 5.0
"""How long the ranks of one host wait for each other's dumps."""
FLUSH_SECONDS = 5.0
"""How often a rank's record is synced to disk with a new heartbeat."""
SUSPENDED_SECONDS = 5.0
"""If the judge wakes up this late, its whole process was suspended and the time does not count as a hang."""
REPORT_SECONDS = 20.0
"""How long the file system or the log may block before a rank ends without a report."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A rank of this host whose process is gone and has recorded no reason."""

    record: RankRecord
    process: Process | None
    """The entry of the process table under its process id, if any."""


def find_hang(quiet: Mapping[str, tuple[str, float]], limits: Mapping[str, float]) -> tuple[str, str, float] | None:
    """Track, phase and quiet seconds of the track furthest over its limit; None if none is. A limit of 0 means no limit."""
    over = [
        (seconds - limit, track, phase, seconds)
        for track, (phase, seconds) in quiet.items()
        if 0 < (limit := limits[PHASE_LIMITS[phase]]) < seconds
    ]
    return max(over)[1:] if over else None


def find_lost(
    records: Iterable[RankRecord], *, own: RankRecord, find_process: Callable[[int], Process | None]
) -> list[Lost]:
    """The ranks of this attempt and host that are gone without a recorded reason."""
    silent = [record for record in records if is_neighbour(record, own=own) and record.ended is None]
    return [
        Lost(record, find_process(record.pid)) for record in silent if not is_running(record, find_process=find_process)
    ]


def describe_lost(lost: Lost, *, now: float, oom_kills: int) -> str:
    """One line: which rank was lost, how it ended as far as that is known, and what it did last.

    `oom_kills` is the number of processes in the job's control group that the kernel killed meanwhile for lack of memory.
    """
    record, process = lost.record, lost.process
    end = ""
    # a dead process keeps its exit status until its parent collects it
    if process and process.start == record.process_start and process.exit_status:
        code = os.waitstatus_to_exitcode(process.exit_status)
        end = f" with exit code {code}" if code >= 0 else f" by signal {-code} ({signal.strsignal(-code)})"
    memory = f"; the kernel killed {oom_kills} process(es) of this job because host memory ran out" if oom_kills else ""
    who = f"rank {record.rank} (pid {record.pid} on {record.host})"
    return f"lost {who}: it ended{end} without giving a reason{memory}; {describe_record(record, now=now)}"


def count_oom_kills(groups: str, *, root: Path = Path("/sys/fs/cgroup")) -> int:
    """Number of processes in this process's control group that the kernel killed for lack of memory; 0 if it is unknown.

    `groups` is the text of /proc/self/cgroup. The counters are described in the kernel's cgroup-v2.rst and, for v1, memory.rst.
    """
    total = 0
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        names = {"": ("", "memory.events"), "memory": ("memory", "memory.oom_control")}
        if controllers in names:
            mount, name = names[controllers]
            with suppress(OSError):
                counts = dict(row.split() for row in (root / mount / path.lstrip("/") / name).read_text().splitlines())
                total += int(counts.get("oom_kill", 0))
    return total


def end_process(code: int, message: str) -> None:
    """End this process at once, whatever its other threads do."""
    # with a deadline: a thread that hangs may hold the lock of the log, or its pipe may be full
    run_within(REPORT_SECONDS, lambda: _log_error(message))
    os._exit(code)


def _log_error(message: str) -> None:
    log.error("%s", message)
    sys.stderr.flush()


def run_within(seconds: float, action: Callable[[], None]) -> None:
    """Run an action in a thread; return after `seconds` even if it has not finished."""
    thread = threading.Thread(target=action, name="watchdog-report", daemon=True)
    thread.start()
    thread.join(seconds)


def _own_oom_kills() -> int:
    with suppress(OSError):
        return count_oom_kills(Path("/proc/self/cgroup").read_text())
    return 0


@dataclass(frozen=True, slots=True)
class Timing:
    """The watchdog's times, which tests shorten."""

    check_seconds: float = CHECK_SECONDS
    grace_seconds: float = GRACE_SECONDS


@dataclass(frozen=True, slots=True)
class Renewal:
    """How the watchdog of rank 0 renews the lease of the run folder."""

    renew: Callable[[], None]
    """Renews it once. After an OSError it is called again at the next renewal, because a file system may be away for a moment."""
    every_seconds: float
    on_lost: Callable[[Exception], None]
    """Called with any other error of `renew`, which is then not called again."""


class Watchdog:
    """The two threads of a rank; made by `start_watchdog`."""

    def __init__(
        self,
        phases: Phases,
        *,
        scene: Scene,
        limits: Mapping[str, float],
        renewal: Renewal | None,
        end: Callable[[int, str], None],
        check_seconds: float,
    ) -> None:
        self._phases, self._scene, self._limits, self._renewal = phases, scene, limits, renewal
        self._end, self._check_seconds = end, check_seconds
        self._oom_kills = _own_oom_kills()
        self._stopping = threading.Event()
        self._found: queue.SimpleQueue[Hang | Lost | None] = queue.SimpleQueue()
        scene.stacks_path(scene.own.rank).unlink(missing_ok=True)  # a link must not be followed
        self._stacks = scene.stacks_path(scene.own.rank).open("x")
        self._threads = [
            threading.Thread(target=self._judge, name="watchdog-judge", daemon=True),
            threading.Thread(target=self._scout, name="watchdog-scout", daemon=True),
        ]

    def start(self) -> None:
        """Start both threads."""
        remove_leftovers(self._scene)
        faulthandler.register(STACKS_SIGNAL, file=self._stacks)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop both threads; afterwards the watchdog does not end this process any more."""
        self._stopping.set()
        self._found.put(None)
        for thread in self._threads:
            # with a deadline: the scout may wait for a file system that never responds
            thread.join(REPORT_SECONDS)
        faulthandler.unregister(STACKS_SIGNAL)
        self._stacks.close()

    def _judge(self) -> None:
        found: Hang | Lost | None = None
        before = time.monotonic()
        while not self._stopping.is_set():
            with suppress(queue.Empty):
                found = self._found.get(timeout=self._check_seconds)
            clock = time.monotonic()
            late, before = clock - before - self._check_seconds, clock
            if late > SUSPENDED_SECONDS:
                self._phases.discount_suspension(late)
            found = found or self._own_hang()
            if found and not self._stopping.is_set():
                self._finish(found)
                return

    def _own_hang(self) -> Hang | None:
        hang = find_hang(self._phases.quiet_seconds(), self._limits)
        if hang is None:
            return None
        track, phase, seconds = hang
        return Hang(rank=self._scene.own.rank, track=track, phase=phase, seconds=seconds, noticed=time.time())

    def _finish(self, found: Hang | Lost) -> None:
        def report() -> None:
            try:
                if isinstance(found, Hang):
                    report_hang(found, scene=self._scene, phases=self._phases)
            finally:
                # otherwise the other ranks of this host would report this one as lost
                self._phases.end(message)

        if isinstance(found, Hang):
            message = f"{describe_hang(found)}; the stacks of all ranks are in {self._scene.folder}"
        else:
            message = describe_lost(found, now=time.time(), oom_kills=_own_oom_kills() - self._oom_kills)
        message = (
            f"{message}; rank {self._scene.own.rank} exits with code {EXIT_PREEMPTED} so that the run is started again"
        )
        run_within(2 * self._scene.grace_seconds + REPORT_SECONDS, report)
        self._end(EXIT_PREEMPTED, message)

    def _scout(self) -> None:
        renewed = flushed = time.monotonic()
        while not self._stopping.wait(self._check_seconds):
            try:
                if found := load_hang(self._scene) or self._find_lost_neighbour():
                    self._found.put(found)
                    return
            except OSError as error:
                log.warning("rank %d cannot check the other ranks of its host: %s", self._scene.own.rank, error)
            clock = time.monotonic()
            if self._renewal and clock - renewed >= self._renewal.every_seconds:
                self._renew(self._renewal)
                renewed = clock
            if clock - flushed >= FLUSH_SECONDS:
                self._phases.flush()
                flushed = clock

    def _renew(self, renewal: Renewal) -> None:
        try:
            renewal.renew()
        except OSError as error:
            log.warning("the lease of the run folder could not be renewed; it will be tried again: %s", error)
        except Exception as error:  # any other error of the caller's function means that the lease is lost
            self._renewal = None
            renewal.on_lost(error)

    def _find_lost_neighbour(self) -> Lost | None:
        ranks: Iterable[int] = self._scene.local_ranks
        lost: list[Lost] = []
        # twice, because a rank may have recorded its end after its record was read
        for _ in range(2):
            records = read_rank_records(ranks_dir(self._scene.run_dir), ranks=ranks)
            lost = find_lost(records, own=self._scene.own, find_process=read_process)
            ranks = [each.record.rank for each in lost]
        return lost[0] if lost else None


def start_watchdog(
    phases: Phases,
    *,
    run_dir: Path,
    local_ranks: Sequence[int],
    limits: Mapping[str, float],
    renewal: Renewal | None = None,
    end: Callable[[int, str], None] = end_process,
    timing: Timing = Timing(),
) -> Watchdog:
    """Start to watch this rank and the other ranks of its host.

    Args:
        phases: the record of this rank, in `ranks_dir(run_dir)`.
        local_ranks: all ranks of this host.
        limits: seconds without progress for every class of `PHASE_LIMITS`; 0 is no limit.
        renewal: on rank 0, how the lease is renewed.
        end: ends the process; called with the exit code and a message on a thread of the watchdog.
    """
    assert limits.keys() >= set(PHASE_LIMITS.values()), limits
    own = phases.record()
    assert own.rank in local_ranks, (own.rank, local_ranks)
    scene = Scene(run_dir=run_dir, own=own, local_ranks=local_ranks, grace_seconds=timing.grace_seconds)
    watchdog = Watchdog(
        phases, scene=scene, limits=limits, renewal=renewal, end=end, check_seconds=timing.check_seconds
    )
    watchdog.start()
    return watchdog
