"""What every rank is doing, on disk: one small file per rank, `<run>/ranks/rank-00000.json`. Knows no time limits.

A record is rewritten in place through an open descriptor, which takes microseconds. It is in the page cache at once, so it
survives SIGKILL and can be read while its writer hangs. A drill kills only when a phase begins.
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
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import read_bytes

log = logging.getLogger(__name__)

MainPhase = Literal["set-up", "step", "search", "evaluation", "export", "snapshot", "wait for save", "finish"]
SavePhase = Literal[
    "idle", "begin", "write part", "part half written", "part written", "manifest", "rename", "renamed", "prune"
]
TRACKS: Mapping[str, tuple[str, ...]] = {"main": get_args(MainPhase), "save": get_args(SavePhase)}
"""Track to its phases. A track starts in its first phase; a phase belongs to one track only."""

PHASE_LIMITS: Mapping[str, str] = {
    "set-up": "set_up",
    "step": "step",
    "search": "evaluation",  # repeats a step in pieces, and may read all data to find the text of a row
    "evaluation": "evaluation",
    "export": "save",
    "snapshot": "save",
    "wait for save": "save",
    "finish": "save",
    **dict.fromkeys(TRACKS["save"], "save"),
}
"""Phase to the class of its time limit, a key of `machine.watchdog`."""

DRILL_VARIABLE = "DSTRAIN_DRILL"
_DRILL = re.compile(r"kill:(?P<phase>[^:]+):(?P<occurrence>[1-9][0-9]*)(?::rank=(?P<rank>[0-9]+))?")
RECORD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class RankRecord:
    """The record of one rank. Times are seconds since 1970; `step` is None before the first step."""

    rank: int
    host: str
    pid_namespace: str
    """Process ids are comparable only within one namespace; empty without /proc."""
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
    """When a background thread of the process last flushed this record."""
    ended: str | None
    """Why the rank ended; None while it runs and after it was killed."""


_RECORD = TypeAdapter(RankRecord)


@dataclass(frozen=True, slots=True)
class Drill:
    """A request to kill a rank with SIGKILL when it enters `phase` for the `occurrence`-th time; `rank` None is every rank."""

    phase: str
    occurrence: int
    rank: int | None = None


class Phases:
    """The record of this rank. Its methods may be called from several threads."""

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
        # two locks, so that quiet_seconds returns while a write hangs in the file system
        self._state, self._writing = threading.Lock(), threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        # an earlier attempt that was cut off may still hold the old file open: it must not write into this one
        record_path(folder, rank=rank).unlink(missing_ok=True)
        self._file = os.open(record_path(folder, rank=rank), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        os.ftruncate(self._file, RECORD_BYTES)
        os.pwrite(self._file, _padded(self._values()), 0)

    @property
    def has_trained(self) -> bool:
        """Whether this rank has completed a step in this attempt."""
        return self._entered["step"] > 1

    def enter(self, phase: str, *, track: str = "main", step: int | None = None) -> None:
        """Record that a phase begins; then kill this process if a drill requests it."""
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

    def mark_progress(self, *, track: str = "main") -> None:
        """Record progress within the same phase."""
        with self._state:
            self._mark(track)
        self._write()

    def quiet_seconds(self) -> dict[str, tuple[str, float]]:
        """Track to its phase and the seconds since its last progress, without idle tracks."""
        with self._state:
            progress = dict(self._progress)
            # a rank that waits for a save makes progress as long as the save does
            if self._tracks["main"] == "wait for save":
                progress["main"] = max(progress.values())
            clock = self._monotonic()
            return {
                track: (phase, max(0.0, clock - progress[track]))
                for track, phase in self._tracks.items()
                if phase != "idle"
            }

    def record(self) -> RankRecord:
        """The present record of this rank, from memory."""
        with self._state:
            return RankRecord(**self._values())

    def discount_suspension(self, seconds: float) -> None:
        """Subtract the time for which the whole process was suspended, for example by Slurm, from every track's quiet time."""
        with self._state:
            clock = self._monotonic()
            self._progress = {track: min(clock, then + seconds) for track, then in self._progress.items()}

    def end(self, reason: str) -> None:
        """Record why this rank ends. Without a reason the other ranks treat its end as a loss."""
        with self._state:
            self._ended = reason
        self._write()

    def flush(self) -> None:
        """Record a heartbeat of the background thread, and sync the record so that other hosts see it."""
        with self._state:
            self._heartbeat = self._now()
        self._write()
        # without a lock: a sync may take seconds, and progress must not wait for it; the file may be closed by now
        with suppress(OSError, ValueError):
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file; later progress is kept in memory only."""
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
                # not fatal: on a full disk the next checkpoint fails with a better message
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
    # JSON escapes lengthen the text, so the reason is shortened until the encoded record fits
    while len(text := json.dumps(record, ensure_ascii=False).encode("utf-8", errors="replace")) >= RECORD_BYTES:
        assert record["ended"], record
        record["ended"] = record["ended"][: -1 - len(record["ended"]) // 8]
    return text.ljust(RECORD_BYTES - 1) + b"\n"


def ranks_dir(run_dir: Path) -> Path:
    """The folder with the records of a run."""
    return RunFolder(run_dir).rank_records


def record_path(folder: Path, *, rank: int) -> Path:
    """The file of one rank's record."""
    return folder / f"rank-{rank:05d}.json"


def read_rank_records(folder: Path, *, ranks: Iterable[int] | None = None) -> list[RankRecord]:
    """The records of `ranks`, by default of all, in rank order and from any attempt. Missing and malformed files are skipped."""
    paths = folder.glob("rank-*.json") if ranks is None else (record_path(folder, rank=rank) for rank in ranks)
    records = []
    for path in paths:
        with suppress(OSError, ValidationError):
            records.append(_RECORD.validate_json(read_bytes(path)))
    return sorted(records, key=lambda record: record.rank)


def read_drill(environment: Mapping[str, str]) -> Drill | None:
    """The drill that DSTRAIN_DRILL requests; None if it is unset.

    Raises:
        UserError: its value is malformed or names an unknown phase.
    """
    value = environment.get(DRILL_VARIABLE, "")
    if not value:
        return None
    match = _DRILL.fullmatch(value)
    known = [phase for phases in TRACKS.values() for phase in phases]
    if not match or match["phase"] not in known:
        raise UserError(
            f"environment: {DRILL_VARIABLE} must be kill:PHASE:OCCURRENCE or kill:PHASE:OCCURRENCE:rank=RANK, as in "
            f"'kill:write part:2:rank=1', with OCCURRENCE at least 1 and PHASE one of: {', '.join(known)}; found {value!r}"
        )
    rank = match["rank"]
    return Drill(phase=match["phase"], occurrence=int(match["occurrence"]), rank=None if rank is None else int(rank))
