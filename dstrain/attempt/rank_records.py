"""What every rank is doing, on disk: one small file a rank, `<run>/ranks/rank-00000.json`. Knows no models and no seconds.

A record is rewritten in place through an open descriptor, which costs microseconds, and lies in the page cache at once: it
outlives SIGKILL and can be read while its writer hangs. A phase is the only place where a drill kills.
"""

import json
import logging
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from dstrain.cluster.processes import this_process
from dstrain.errors import UserError

log = logging.getLogger(__name__)

MainPhase = Literal["set-up", "step", "search", "evaluation", "export", "snapshot", "wait for save", "finish"]
SavePhase = Literal[
    "idle", "begin", "write part", "part half written", "part written", "manifest", "rename", "renamed", "prune"
]
TRACKS: Mapping[str, tuple[str, ...]] = {"main": get_args(MainPhase), "save": get_args(SavePhase)}
"""Track to its phases; the first is where it starts. A phase belongs to one track alone."""

PHASE_LIMITS: Mapping[str, str] = {
    "set-up": "set_up",
    "step": "step",
    "search": "evaluation",  # computes a step again in pieces, and may read all data for the text of a row
    "evaluation": "evaluation",
    "export": "save",
    "snapshot": "save",
    "wait for save": "save",
    "finish": "save",
    **dict.fromkeys(TRACKS["save"], "save"),
}
"""Phase to the class of its time limit."""

DRILL_VARIABLE = "DSTRAIN_DRILL"
_DRILL = re.compile(r"kill:(?P<phase>[^:]+):(?P<occurrence>[1-9][0-9]*)(?::rank=(?P<rank>[0-9]+))?")
RECORD_BYTES = 1024

Enter = Callable[..., None]
"""`Phases.enter`, or `enter_nothing`."""


@dataclass(frozen=True, slots=True)
class RankRecord:
    """One rank as its file tells. Times are seconds since 1970; `step` is None before the first."""

    rank: int
    host: str
    pid_namespace: str
    """A process id means something only to processes that share it; empty where there is no /proc."""
    pid: int
    process_start: int
    attempt: int
    """Number of the lease, 0 without one."""
    tracks: dict[str, str]
    step: int | None
    beats: int
    """Marks of progress so far."""
    changed: float
    """When progress was last made."""
    heartbeat: float
    """When the background thread of the process last ran, as far as it flushes this record."""
    ended: str | None
    """Why the rank ended, in words; None while it runs, and for good if it was killed."""


_RECORD = TypeAdapter(RankRecord)


@dataclass(frozen=True, slots=True)
class Drill:
    """Kill this process with SIGKILL when it enters `phase` for the `occurrence`-th time; `rank` None means every rank."""

    phase: str
    occurrence: int
    rank: int | None = None


class Phases:
    """The record of this rank. Safe to call from several threads."""

    def __init__(
        self,
        folder: Path,
        *,
        rank: int,
        attempt: int,
        drill: Drill | None = None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        own = this_process()
        self._fixed = {
            "rank": rank,
            "host": own.host,
            "pid_namespace": own.pid_namespace,
            "pid": own.pid,
            "process_start": own.process_start,
            "attempt": attempt,
        }
        self._drill = drill if drill and drill.rank in (None, rank) else None
        self._now, self._monotonic = now, monotonic
        self._tracks = {track: phases[0] for track, phases in TRACKS.items()}
        self._progress = dict.fromkeys(TRACKS, monotonic())
        self._entered: Counter[str] = Counter()
        self._step: int | None = None
        self._beats = 0
        self._changed = self._heartbeat = now()
        self._ended: str | None = None
        # apart, so that quiet_seconds answers while a write hangs with the file system
        self._state, self._writing = threading.Lock(), threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        # a cut-off earlier start may still hold the old file open: it must not write into this one
        record_path(folder, rank=rank).unlink(missing_ok=True)
        self._file = os.open(record_path(folder, rank=rank), os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self._file, RECORD_BYTES)
        os.pwrite(self._file, _padded(self._values()), 0)

    def enter(self, phase: str, *, track: str = "main", step: int | None = None) -> None:
        """Record that a phase begins; then, if a drill says so, kill this process."""
        assert phase in TRACKS[track], (track, phase)
        with self._state:
            self._tracks[track] = phase
            self._step = self._step if step is None else step
            self._entered[phase] += 1
            entered = self._entered[phase]
            self._mark(track)
        self._write()
        if self._drill and (self._drill.phase, self._drill.occurrence) == (phase, entered):
            os.kill(os.getpid(), signal.SIGKILL)

    def beat(self, *, track: str = "main") -> None:
        """Record progress within the same phase."""
        with self._state:
            self._mark(track)
        self._write()

    def quiet_seconds(self) -> dict[str, tuple[str, float]]:
        """Track to its phase and the seconds since its last progress; a track that is idle is not listed."""
        with self._state:
            progress = dict(self._progress)
            # whoever waits for a save gets on as long as the save does
            if self._tracks["main"] == "wait for save":
                progress["main"] = max(progress.values())
            clock = self._monotonic()
            return {
                track: (phase, max(0.0, clock - progress[track]))
                for track, phase in self._tracks.items()
                if phase != "idle"
            }

    def record(self) -> RankRecord:
        """This rank as it is now, from memory."""
        with self._state:
            return RankRecord(**self._values())

    def forgive(self, seconds: float) -> None:
        """Take time off every track's silence, because the whole process was not running then (suspended by Slurm)."""
        with self._state:
            clock = self._monotonic()
            self._progress = {track: min(clock, then + seconds) for track, then in self._progress.items()}

    def end(self, reason: str) -> None:
        """Record why this rank ends; without it, others take the end of this process for a loss."""
        with self._state:
            self._ended = reason
        self._write()

    def flush(self) -> None:
        """Record that a background thread of this process runs, and make other hosts see the record."""
        with self._state:
            self._heartbeat = self._now()
        self._write()
        # without a lock, because a sync may take seconds and progress must not wait for it; so it may be closed by now
        with suppress(OSError, ValueError):
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file; later progress is kept in memory alone."""
        with self._writing:
            if self._file >= 0:
                os.close(self._file)
            self._file = -1

    def _mark(self, track: str) -> None:
        self._progress[track] = self._monotonic()
        self._beats += 1
        self._changed = self._now()

    def _write(self) -> None:
        with self._writing:
            if self._file < 0:
                return
            with self._state:
                values = self._values()
            try:
                os.pwrite(self._file, _padded(values), 0)
            except OSError as error:
                # a record is a courtesy: a full disk ends a run in its checkpoints, with a better message
                log.warning("rank %d cannot record its phase: %s", self._fixed["rank"], error)

    def _values(self) -> dict[str, Any]:
        return {
            **self._fixed,
            "tracks": dict(self._tracks),
            "step": self._step,
            "beats": self._beats,
            "changed": round(self._changed, 3),
            "heartbeat": round(self._heartbeat, 3),
            "ended": self._ended,
        }


def _padded(record: dict[str, Any]) -> bytes:
    # JSON's escapes make letters longer than they are, so the reason is cut where the whole fits
    while len(text := json.dumps(record, ensure_ascii=False).encode("utf-8", errors="replace")) >= RECORD_BYTES:
        assert record["ended"], record
        record["ended"] = record["ended"][: -1 - len(record["ended"]) // 8]
    return text.ljust(RECORD_BYTES - 1) + b"\n"


def enter_nothing(phase: str, *, track: str = "main", step: int | None = None) -> None:
    """Stands in for `Phases.enter` where nobody watches."""


def ranks_dir(run_dir: Path) -> Path:
    """Where the records of a run lie."""
    return run_dir / "ranks"


def record_path(folder: Path, *, rank: int) -> Path:
    """The file of a rank among the records of `folder`."""
    return folder / f"rank-{rank:05d}.json"


def read_rank_records(folder: Path, *, ranks: Iterable[int] | None = None) -> list[RankRecord]:
    """Records in the order of ranks, of all attempts; missing, torn and malformed files are passed over."""
    paths = folder.glob("rank-*.json") if ranks is None else (record_path(folder, rank=rank) for rank in ranks)
    records = []
    for path in paths:
        with suppress(OSError, ValidationError):
            records.append(_RECORD.validate_json(path.read_bytes()))
    return sorted(records, key=lambda record: record.rank)


def read_drill(environment: Mapping[str, str]) -> Drill | None:
    """The drill that DSTRAIN_DRILL asks for, None without one.

    Raises:
        UserError: it is malformed, or its phase does not exist.
    """
    value = environment.get(DRILL_VARIABLE, "")
    if not value:
        return None
    match = _DRILL.fullmatch(value)
    known = [phase for phases in TRACKS.values() for phase in phases]
    if not match or match["phase"] not in known:
        raise UserError(
            f"environment: {DRILL_VARIABLE} must be kill:PHASE:OCCURRENCE or kill:PHASE:OCCURRENCE:rank=RANK, as in "
            f"'kill:write part:2:rank=1', with an occurrence from 1 and a phase of: {', '.join(known)}; found {value!r}"
        )
    rank = match["rank"]
    return Drill(phase=match["phase"], occurrence=int(match["occurrence"]), rank=None if rank is None else int(rank))
