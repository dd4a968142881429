"""What a tracker is: a service that shows the rows and scores of runs, seen from here. Knows none by name.

A package brings one of its own by an entry point of the group `dstrain.trackers`: a class of type Tracker.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from dstrain.errors import UserError
from dstrain.run_folder.record import Status
from dstrain.run_folder.tracked import PointKey


class TrackerFailed(UserError):
    """A tracker cannot be reached, or refuses what it is sent. A run continues without it."""


@dataclass(frozen=True, slots=True)
class Point:
    """The numbers of one logging interval, one evaluation or the like."""

    part: str
    """`train`, `eval`, or another kind of numbers that arrives on its own. A run has one point of each part and step."""
    step: int
    values: Mapping[str, float]
    """By name, such as `train/loss` or `eval/flores/bleu`; some may not be finite."""
    time: float = 0.0
    """In seconds since 1970: the run's first start and the time trained since, so that pauses between attempts do not show."""
    number: int = 0
    """Among all points of the run that its tracker is sent. A point that is sent again has the same number."""
    is_unsure: bool = False
    """Whether it may have arrived before."""

    @property
    def key(self) -> PointKey:
        return self.part, self.step


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tracker shows a run, by the recipe or a command; None is what the tracker's own variables or defaults say."""

    folder: Path
    """For what the tracker writes itself; it may not exist."""
    project: str | None = None
    uri: str | None = None


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run as it is introduced to a tracker."""

    id: str
    """Letters and digits; the same over all attempts."""
    name: str
    config: Mapping[str, Any]
    """The recipe with all defaults."""


class Tracker(ABC):
    """One tracker, for one run. Whatever fails raises; the caller opens the tracker again and repeats what is unsure."""

    package: ClassVar[str] = ""
    """The package that must be installed beside the one that brings the tracker, if any."""
    is_sure_when_sent: ClassVar[bool] = True
    """Whether what was sent has arrived when `send` returns; otherwise only when `close` returns."""

    @abstractmethod
    def __init__(self, place: Place) -> None:
        """Connects to nothing, and imports no package of the tracker."""

    @property
    @abstractmethod
    def destination(self) -> str:
        """Where the points go, without secrets. Another destination is sent the whole run."""

    @property
    def address(self) -> str | None:
        """Where a browser shows the run, once it is open; None if the tracker does not say."""
        return None

    @abstractmethod
    def open(self, run: TrackedRun) -> int | None:
        """Begin to show the run, or go on with the one of the same id.

        Returns how many points are there: all with lower numbers have arrived, and no others. 0 if the run begins again, which
        has it sent from its first point. None if that cannot be told.
        """

    @abstractmethod
    def send(self, points: Sequence[Point]) -> None:
        """Show points, in the order of their numbers; steps may be older than those before."""

    @abstractmethod
    def close(self, status: Status) -> None:
        """Wait until all points have arrived. The run may be opened again, whatever its status."""
