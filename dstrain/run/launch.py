"""How an attempt was started: its process, its command and its options, without the recipe. No torch."""

from dataclasses import dataclass
from typing import Any

from dstrain.attempt.rank_records import Drill
from dstrain.cluster.environment import ProcessInfo
from dstrain.cluster.rendezvous import Rendezvous
from dstrain.config.schema import RunConfig


@dataclass(frozen=True, slots=True)
class Launch:
    """What an attempt is started with, besides its configuration."""

    process: ProcessInfo
    command: tuple[str, ...]
    """The words of the command that starts the run again on the same number of ranks."""
    allow_changed: tuple[str, ...] = ()
    """Fields that may differ from those of the checkpoint."""
    whole: RunConfig | None = None
    """The recipe that `--debug` has shrunk, else None. Such a run is deterministic, with anomaly detection, in a folder that is
    emptied first."""
    drill: Drill | None = None
    """When this process kills itself, to test that nothing is lost."""
    rendezvous: Rendezvous | None = None
    """The port that the ranks have agreed on, where their launcher provides none."""
    cause: str | None = None
    """Why the run is started, for the event in metrics.jsonl."""
    allocation_end: float | None = None
    """When the scheduler ends this process, in seconds since 1970."""

    @property
    def options(self) -> dict[str, Any]:
        """The options that must be the same on every rank."""
        return {"--allow-changed": sorted(self.allow_changed), "--debug or --overfit": self.whole is not None}
