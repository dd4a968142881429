"""Reports a hang: announces it, dumps the stacks of every rank, and kills the ranks that do not respond. Knows no time limits.

The folder `<run>/hangs/<attempt>/` has `hang.json` from the rank that noticed, and one `rank-00000.txt` per rank, written by
that rank or, if it does not respond, by another one.
"""

import faulthandler
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from dstrain.attempt.rank_records import Phases, RankRecord, ranks_dir, read_rank_records
from dstrain.cluster.processes import Process, read_process
from dstrain.run_folder.atomic import open_new
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import read_bytes

STACKS_SIGNAL = signal.SIGRTMIN + 7
"""Requests the stacks of a rank. No launcher or library uses this signal."""
STACKS_SECONDS = 1.0
"""How long a rank has to dump its stacks before it is killed."""
STALE_SECONDS = 60.0
"""Clocks of hosts differ by less, so an announcement this much older than a rank is from another run."""


@dataclass(frozen=True, slots=True)
class Hang:
    """A rank without progress, reported by the first rank that noticed it. `noticed` is in seconds since 1970."""

    rank: int
    track: str
    phase: str
    seconds: float
    noticed: float


_HANG = TypeAdapter(Hang)


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a rank reports a hang, and which ranks share its host."""

    run_dir: Path
    own: RankRecord
    """The record of this rank when its watchdog started."""
    local_ranks: Sequence[int]
    grace_seconds: float
    """How long the ranks of one host wait for each other's dumps."""

    @property
    def folder(self) -> Path:
        return RunFolder(self.run_dir).hang(self.own.attempt)

    def dump_path(self, rank: int) -> Path:
        return self.folder / f"rank-{rank:05d}.txt"

    def stacks_path(self, rank: int) -> Path:
        """Where faulthandler writes a rank's stacks after STACKS_SIGNAL; empty until then."""
        return ranks_dir(self.run_dir) / f"rank-{rank:05d}.stacks"


def is_neighbour(record: RankRecord, *, own: RankRecord) -> bool:
    """Whether a record is of another rank of this attempt whose process is visible from here."""
    here = (own.attempt, own.host, own.pid_namespace)
    is_here = (record.attempt, record.host, record.pid_namespace) == here
    return is_here and record.rank != own.rank and own.pid_namespace != ""


def is_running(record: RankRecord, *, find_process: Callable[[int], Process | None] = read_process) -> bool:
    """Whether the process of a record still runs. A zombie, or a later process with the same id, does not count."""
    process = find_process(record.pid)
    return process is not None and process.start == record.process_start and process.state not in "ZX"


def describe_hang(hang: Hang) -> str:
    """One line: which rank makes no progress, and in which phase."""
    return f"hang: rank {hang.rank} made no progress for {hang.seconds:.1f} s in {hang.track} phase {hang.phase!r}"


def describe_record(record: RankRecord, *, now: float) -> str:
    """One line: what a rank did last."""
    phases = ", ".join(f"{track} {phase!r}" for track, phase in record.tracks.items())
    step = "before the first step" if record.step is None else f"step {record.step}"
    ended = f", ended: {record.ended}" if record.ended else ""
    quiet, silent = now - record.changed, now - record.heartbeat
    return f"phases {phases}, {step}, last progress {quiet:.1f} s ago, last heartbeat {silent:.1f} s ago{ended}"


def load_hang(scene: Scene) -> Hang | None:
    """The hang that was announced in this attempt; None without one."""
    with suppress(OSError, ValidationError):
        hang = _HANG.validate_json(read_bytes(RunFolder(scene.run_dir).hang_record(scene.own.attempt)))
        if hang.noticed > scene.own.changed - STALE_SECONDS:
            return hang
    return None


def remove_leftovers(scene: Scene) -> None:
    """Remove files of another run for this rank: attempts start at 1 again after a user has emptied the lease folder."""
    if load_hang(scene) is None:
        RunFolder(scene.run_dir).hang_record(scene.own.attempt).unlink(missing_ok=True)
        scene.dump_path(scene.own.rank).unlink(missing_ok=True)


def report_hang(hang: Hang, *, scene: Scene, phases: Phases) -> None:
    """Announce a hang, dump this rank's stacks, and act for the ranks of this host that do not respond.

    The lowest running rank acts for the silent ones. Returns once every local rank has a dump, or after two grace periods.
    """
    is_first = _announce(hang, scene=scene)
    _dump(scene, phases=phases)
    _wait_for_dumps(scene)
    dumped = [rank for rank in scene.local_ranks if scene.dump_path(rank).exists()]
    if min(dumped) == scene.own.rank:
        _end_silent([rank for rank in scene.local_ranks if rank not in dumped], scene=scene)
    else:
        # a launcher kills all ranks once one has ended, so stay until the silent ones have a dump
        _wait_for_dumps(scene)
    if is_first:
        _describe_other_hosts(scene)


def _announce(hang: Hang, *, scene: Scene) -> bool:
    scene.folder.mkdir(parents=True, exist_ok=True)
    return _write_new(RunFolder(scene.run_dir).hang_record(scene.own.attempt), json.dumps(asdict(hang)) + "\n")


def _dump(scene: Scene, *, phases: Phases) -> None:
    own, path = phases.record(), scene.dump_path(scene.own.rank)
    lines = [
        f"rank {own.rank}, pid {own.pid} on {own.host}, attempt {own.attempt}",
        describe_record(own, now=time.time()),
        *(
            f"no progress for {seconds:.1f} s in {track} phase {phase!r}"
            for track, (phase, seconds) in phases.quiet_seconds().items()
        ),
    ]
    with open_new(path) as file:
        file.write("".join(f"{line}\n" for line in [*lines, ""]).encode())
        file.flush()  # first, because faulthandler bypasses Python's buffer
        faulthandler.dump_traceback(file=file)


def _wait_for_dumps(scene: Scene) -> None:
    deadline = time.monotonic() + scene.grace_seconds
    while time.monotonic() < deadline and not all(scene.dump_path(rank).exists() for rank in scene.local_ranks):
        time.sleep(0.05)


def _end_silent(ranks: list[int], *, scene: Scene) -> None:
    records = read_rank_records(ranks_dir(scene.run_dir), ranks=ranks)
    neighbours = {record.rank: record for record in records if is_neighbour(record, own=scene.own)}
    # before the signals, which change the state
    states = {rank: describe_process(record) for rank, record in neighbours.items()}
    running = [record for record in neighbours.values() if is_running(record)]
    _request_stacks(running, scene=scene)
    killed = [stuck.rank for stuck in running if _send_signal(stuck, signal.SIGKILL)]
    for rank in ranks:
        lines = [f"rank {rank} wrote no stacks within {scene.grace_seconds:.1f} s; written by rank {scene.own.rank}"]
        if record := neighbours.get(rank):
            lines += [f"pid {record.pid} on {record.host}: {states[rank]}", describe_record(record, now=time.time())]
            lines += ["killed with SIGKILL"] * (rank in killed) + ["", _load_stacks(rank, scene=scene)]
        else:
            lines.append(
                f"it has no record in attempt {scene.own.attempt} with a process that rank {scene.own.rank} can see"
            )
        _write_new(scene.dump_path(rank), "\n".join(lines) + "\n")


def describe_process(record: RankRecord) -> str:
    """The state of a rank's process, and the kernel function it sleeps in if the kernel reveals it."""
    process = read_process(record.pid)
    if process is None or process.start != record.process_start:
        return "process gone"
    state = f"process state {process.state}"
    with suppress(OSError):
        # "0" if it does not sleep, or if the kernel hides the function
        if (where := Path(f"/proc/{record.pid}/wchan").read_text().strip()) not in ("", "0"):
            return f"{state}, in {where}"
    return state


def _request_stacks(records: list[RankRecord], *, scene: Scene) -> None:
    for record in records:
        _send_signal(record, STACKS_SIGNAL)
    deadline = time.monotonic() + STACKS_SECONDS
    before: list[int] = []
    while time.monotonic() < deadline:
        sizes = [len(_load_stacks(record.rank, scene=scene)) for record in records]
        if all(sizes) and sizes == before:  # no longer growing: the rank is killed next, and would not finish
            return
        before = sizes
        time.sleep(0.05)


def _load_stacks(rank: int, *, scene: Scene) -> str:
    with suppress(OSError):
        return read_bytes(scene.stacks_path(rank)).decode(errors="replace")
    return ""


def _send_signal(record: RankRecord, number: int) -> bool:
    # checked again each time: the process id may have been reused
    if not is_running(record):
        return False
    with suppress(ProcessLookupError):
        os.kill(record.pid, number)
    return True


def _describe_other_hosts(scene: Scene) -> None:
    for record in read_rank_records(ranks_dir(scene.run_dir)):
        if record.attempt == scene.own.attempt and record.rank not in scene.local_ranks:
            head = f"rank {record.rank}, pid {record.pid} on {record.host}, has written no stacks yet"
            text = f"{head}; written by rank {scene.own.rank}\n{describe_record(record, now=time.time())}\n"
            _write_new(scene.dump_path(record.rank), text)


def _write_new(path: Path, text: str) -> bool:
    # never overwrites the dump that a rank has written itself
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True
