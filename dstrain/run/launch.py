"""How an attempt was requested: by which process, with which command, and with what else than its recipe. Knows no torch."""

from dataclasses import dataclass

from dstrain.attempt.rank_records import Drill
from dstrain.cluster.environment import ProcessInfo
from dstrain.cluster.rendezvous import Rendezvous


@dataclass(frozen=True, slots=True)
class Launch:
    """What an attempt is started with, besides its configuration."""

    process: ProcessInfo
    command: str
    """As one would type it to start the run again on as many ranks."""
    allow_changed: tuple[str, ...] = ()
    """Fields that may differ from those of the checkpoint."""
    debug: bool = False
    """Deterministic, with anomaly detection, in a folder that is emptied first."""
    drill: Drill | None = None
    """When this process is to kill itself, to prove that nothing is lost."""
    rendezvous: Rendezvous | None = None
    """The port that the ranks have agreed on, where their launcher provides none."""
    cause: str | None = None
    """Why the run is started, for its history."""
    allocation_end: float | None = None
    """When this process will be ended from outside, in seconds since 1970."""
