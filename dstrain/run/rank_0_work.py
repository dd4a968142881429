"""Long work that rank 0 does alone while the other ranks wait for it.

They wait for a file instead of in a collective operation, because large data would exceed the time limit of that. A rank that
waits makes progress as long as rank 0 does, so its watchdog ends it only if rank 0 hangs. A rank 0 that is dead is noticed by
the watchdogs of its host, and by the ranks of other hosts because its heartbeat stands still.
"""

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dstrain.attempt.rank_records import Phases, ranks_dir, read_rank_records
from dstrain.cluster.process_group import Ranks
from dstrain.errors import PeerLost
from dstrain.run_folder.atomic import write_file

POLL_SECONDS = 0.2
LOOK_SECONDS = 5.0
"""How often a waiting rank looks at the record of rank 0."""
SILENT_SECONDS = 600.0
"""Rank 0 is lost if its heartbeat, written every five seconds, has not changed for so long; a file server may show it late."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What a waiting rank last saw of rank 0."""

    beats: int
    heartbeat: float
    seen: float
    """When the heartbeat was seen first, by the clock of the waiting rank."""


class Follower:
    """Watches rank 0's record on behalf of a rank that waits."""

    def __init__(self, phases: Phases, *, run_dir: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._phases, self._folder, self._now = phases, ranks_dir(run_dir), now
        self._attempt = phases.record().attempt
        self._last = Sign(-1, -1.0, now())

    def look(self) -> None:
        """Make progress if rank 0 has. Raises PeerLost if rank 0 has given no sign of life for SILENT_SECONDS."""
        last, found = self._last, None
        for record in read_rank_records(self._folder, ranks=[0]):
            found = record if record.attempt == self._attempt else None
        if found is not None and found.beats != last.beats:
            self._phases.mark_progress()
        if found is not None and (found.beats, found.heartbeat) != (last.beats, last.heartbeat):
            self._last = Sign(found.beats, found.heartbeat, self._now())
        elif (silent := self._now() - last.seen) > SILENT_SECONDS:
            raise PeerLost(f"rank 0, which this rank waits for, has given no sign of life for {silent:.0f} s")


def made_by_rank_0(
    make: Callable[[], list[str]], *, run_dir: Path, ranks: Ranks, phases: Phases | None = None
) -> list[str]:
    """What rank 0 makes, on every rank; a collective call. With `phases`, waiting ranks follow the record of rank 0.

    Raises:
        PeerLost: rank 0 has given no sign of life for ten minutes.
    """
    report = run_dir / f".prepared-{ranks.broadcast(secrets.token_hex(8), str)}"
    if ranks.rank == 0:
        run_dir.mkdir(parents=True, exist_ok=True)
        made = make()
        write_file(report, json.dumps(made))
    else:
        # rank 0's failure needs no message here: it ends the run, and the launcher ends this rank
        _wait_for(report, follower=None if phases is None else Follower(phases, run_dir=run_dir))
        made = json.loads(report.read_text())
    ranks.barrier()
    report.unlink(missing_ok=True)
    return made


def _wait_for(report: Path, *, follower: Follower | None) -> None:
    looked = time.monotonic()
    while not report.exists():
        time.sleep(POLL_SECONDS)
        if follower is not None and time.monotonic() - looked > LOOK_SECONDS:
            follower.look()
            looked = time.monotonic()
