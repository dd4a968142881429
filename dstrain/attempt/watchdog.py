"""Ends a rank that hangs, or whose neighbour on the same host was lost. Knows phases and their limits, not what is computed.

Two daemon threads a rank. The judge looks at memory alone, so that it ends a rank whose file system hangs too; the scout
reads and writes the run folder. The rank that notices a hang announces it there, where the others look every second (on NFS
another host may see it as late as its attribute cache allows, up to a minute).

A rank that is stopped, sleeps uninterruptibly or sits in C code that holds the GIL runs neither thread. The others hang
soon, because they wait for it: a neighbour asks its C level for stacks by a signal, which faulthandler answers without the
GIL, writes down what the kernel says of it, and kills it. Alone on its host, it is left to its launcher, once the ranks of
other hosts have ended; alone in the run, nobody notices.
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
"""How long ranks of one host wait for each other's stacks."""
FLUSH_SECONDS = 5.0
SUSPENDED_SECONDS = 5.0
"""A judge that wakes this much too late was suspended with its whole process, and nobody hung."""
REPORT_SECONDS = 20.0
"""How long the file system, or the log, may take before a rank ends without its last words."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A rank of this host whose process is gone without a last word."""

    record: RankRecord
    process: Process | None
    """What the process table still has under its process id."""


def find_hang(quiet: Mapping[str, tuple[str, float]], limits: Mapping[str, float]) -> tuple[str, str, float] | None:
    """Track, phase and quiet seconds of the track furthest over its limit; None while all get on. A limit of 0 is none."""
    over = [
        (seconds - limit, track, phase, seconds)
        for track, (phase, seconds) in quiet.items()
        if 0 < (limit := limits[PHASE_LIMITS[phase]]) < seconds
    ]
    return max(over)[1:] if over else None


def find_lost(
    records: Iterable[RankRecord], *, own: RankRecord, find_process: Callable[[int], Process | None]
) -> list[Lost]:
    """Ranks of this attempt and host that are gone and have not said why."""
    silent = [record for record in records if is_neighbour(record, own=own) and record.ended is None]
    return [
        Lost(record, find_process(record.pid)) for record in silent if not is_running(record, find_process=find_process)
    ]


def describe_lost(lost: Lost, *, now: float, oom_kills: int) -> str:
    """Which rank, where, what it did last, and how it ended as far as that is known.

    `oom_kills` counts what the kernel has killed meanwhile for want of memory, in the job's own group.
    """
    record, process = lost.record, lost.process
    end = ""
    # until its parent has asked for it, a dead process keeps its status
    if process and process.start == record.process_start and process.exit_status:
        code = os.waitstatus_to_exitcode(process.exit_status)
        end = f" with exit code {code}" if code >= 0 else f" by signal {-code} ({signal.strsignal(-code)})"
    memory = f"; the kernel killed {oom_kills} process(es) of this job because host memory ran out" if oom_kills else ""
    who = f"rank {record.rank} (pid {record.pid} on {record.host})"
    return f"lost {who}: it ended{end} without a word{memory}; {describe_record(record, now=now)}"


def count_oom_kills(groups: str, *, root: Path = Path("/sys/fs/cgroup")) -> int:
    """Processes of this one's control group that the kernel killed for want of memory; 0 where it does not say.

    `groups` is the text of /proc/self/cgroup; the counts are those of the kernel's cgroup-v2.rst and, for v1, memory.rst.
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
    # with a deadline, because whoever hangs may hold the lock of the log, or nobody may empty its pipe
    run_within(REPORT_SECONDS, lambda: _say(message))
    os._exit(code)


def _say(message: str) -> None:
    log.error("%s", message)
    sys.stderr.flush()


def run_within(seconds: float, action: Callable[[], None]) -> None:
    """Run an action, and go on without its end if it takes longer."""
    thread = threading.Thread(target=action, name="watchdog-report", daemon=True)
    thread.start()
    thread.join(seconds)


def _own_oom_kills() -> int:
    with suppress(OSError):
        return count_oom_kills(Path("/proc/self/cgroup").read_text())
    return 0


@dataclass(frozen=True, slots=True)
class Renewal:
    """How the lease is kept: see `start_watchdog`."""

    renew: Callable[[], None]
    every_seconds: float
    on_lost: Callable[[Exception], None]


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
        self._stacks = scene.stacks_path(scene.own.rank).open("w")
        self._threads = [
            threading.Thread(target=self._judge, name="watchdog-judge", daemon=True),
            threading.Thread(target=self._scout, name="watchdog-scout", daemon=True),
        ]

    def start(self) -> None:
        """Begin to watch."""
        remove_leftovers(self._scene)
        faulthandler.register(STACKS_SIGNAL, file=self._stacks)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Watch no longer; afterwards nothing ends this process."""
        self._stopping.set()
        self._found.put(None)
        for thread in self._threads:
            # the scout may wait for a file system that never answers
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
                self._phases.forgive(late)
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
                # or else the neighbours would take this end for a loss
                self._phases.end(message)

        if isinstance(found, Hang):
            message = f"{describe_hang(found)}; the stacks of all ranks are in {self._scene.folder}"
        else:
            message = describe_lost(found, now=time.time(), oom_kills=_own_oom_kills() - self._oom_kills)
        message = f"{message}; rank {self._scene.own.rank} ends with code {EXIT_PREEMPTED}, to be started again"
        run_within(2 * self._scene.grace_seconds + REPORT_SECONDS, report)
        self._end(EXIT_PREEMPTED, message)

    def _scout(self) -> None:
        renewed = flushed = time.monotonic()
        while not self._stopping.wait(self._check_seconds):
            try:
                if found := load_hang(self._scene) or self._lost_neighbour():
                    self._found.put(found)
                    return
            except OSError as error:
                log.warning("rank %d cannot look after its neighbours: %s", self._scene.own.rank, error)
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
            log.warning("the lease on the run folder could not be renewed, it is tried again: %s", error)
        except Exception as error:  # the lease is another module's, and so are its errors
            self._renewal = None
            renewal.on_lost(error)

    def _lost_neighbour(self) -> Lost | None:
        ranks: Iterable[int] = self._scene.local_ranks
        lost: list[Lost] = []
        # twice, because a rank may have written its last word after its record was read
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
    renew: Callable[[], None] | None,
    renew_seconds: float,
    on_lost: Callable[[Exception], None],
    end: Callable[[int, str], None] = end_process,
    check_seconds: float = CHECK_SECONDS,
    grace_seconds: float = GRACE_SECONDS,
) -> Watchdog:
    """Watch over this rank and its neighbours, the `local_ranks` of this host; `phases` writes into `ranks_dir(run_dir)`.

    `limits` has seconds for every class of PHASE_LIMITS, 0 for none. `end` gets the exit code and a message, on a thread of
    the watchdog. `renew` keeps the lease of the run folder, on rank 0. What it raises goes to `on_lost`, and it is not called
    again; but for an OSError, which a file system gives that is away for a moment: the next renewal shows what came of it.
    """
    assert limits.keys() >= set(PHASE_LIMITS.values()), limits
    own = phases.record()
    assert own.rank in local_ranks, (own.rank, local_ranks)
    scene = Scene(run_dir=run_dir, own=own, local_ranks=local_ranks, grace_seconds=grace_seconds)
    renewal = Renewal(renew, every_seconds=renew_seconds, on_lost=on_lost) if renew else None
    watchdog = Watchdog(phases, scene=scene, limits=limits, renewal=renewal, end=end, check_seconds=check_seconds)
    watchdog.start()
    return watchdog
