"""Sends a run to one tracker: reads the run folder, sends what the tracker lacks, and keeps what was sent.

One process at a time sends a run to a tracker; a lock in the run folder sees to that.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from dstrain.errors import UserError
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import RunRecord, Status, load_record
from dstrain.run_folder.tracked import Sent, read_tracked, write_tracked
from dstrain.tracking.mirror import after_arrival, after_opening, before_sending, points_to_send
from dstrain.tracking.points import points_of
from dstrain.tracking.tracker import TrackedRun, Tracker, TrackerFailed

MOST_POINTS = 200
"""Points that are sent at once. Each has some twenty numbers; a kill leaves so many unsure."""


class TrackerBusy(UserError):
    """Another process sends this run to this tracker."""


@contextmanager
def only_sender(folder: RunFolder, *, name: str) -> Iterator[None]:
    """The right to send a run to a tracker, for this process alone.

    Raises:
        TrackerBusy: another process has it.
    """
    path = folder.tracker_lock(name)
    path.parent.mkdir(exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrackerBusy(
                f"{folder.path}: another process is sending this run to {name}, perhaps the run itself: wait until it ends"
            ) from error
        except OSError as error:
            # a file system without locks: then nothing keeps two senders apart
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        yield
    finally:
        os.close(descriptor)


class Sender:
    """Sends a run to one destination. After any error it begins again with a new tracker, and what is unsure is sent again."""

    def __init__(
        self, folder: RunFolder, *, name: str, make_tracker: Callable[[], Tracker], run_name: str | None = None
    ) -> None:
        """`run_name` is the run's name there; None is the recipe's. The caller holds `only_sender`."""
        self._folder, self._name, self._run_name = folder, name, run_name
        self._make_tracker = make_tracker
        self._tracked = read_tracked(folder, name=name)
        self._tracker: Tracker | None = None
        self._is_opened = False
        self._destination = ""
        self._session = Sent()
        self._status: Status = "interrupted"

    @property
    def address(self) -> str | None:
        """Where a browser shows the run; None if that is not known, or nothing was sent yet."""
        return self._tracker.address if self._tracker is not None and self._is_opened else None

    @property
    def destination(self) -> str:
        """Where the run was sent last."""
        return self._destination

    def update(self) -> int:
        """Send what is missing; returns how many points that were. Raises whatever the tracker or the run folder raises."""
        record = load_record(self._folder.path)
        self._status = record.status
        try:
            tracker = self._open(record)
            return self._send(record, tracker=tracker)
        except BaseException:
            self._tracker = None
            raise

    def close(self) -> None:
        """Wait until everything has arrived. Raises whatever the tracker raises."""
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            tracker.close(self._status)
            self._keep(self._session)

    def _open(self, record: RunRecord) -> Tracker:
        if self._tracker is not None:
            return self._tracker
        tracker = self._make_tracker()
        self._destination, self._is_opened = tracker.destination, False
        # the id before the tracker learns it, so that a kill leaves no run that is unknown here
        self._keep(self._kept)
        config = record.config
        run = TrackedRun(self._tracked.run_id, self._run_name or config.name, config.model_dump(mode="json"))
        self._keep(after_opening(self._kept, num_there=tracker.open(run)))
        self._session, self._tracker, self._is_opened = self._kept, tracker, True
        return tracker

    def _send(self, record: RunRecord, *, tracker: Tracker) -> int:
        waiting = points_to_send(points_of(record), sent=self._session)
        for first in range(0, len(waiting), MOST_POINTS):
            batch = waiting[first : first + MOST_POINTS]
            self._keep(before_sending(self._kept, batch))
            tracker.send(batch)
            self._session = after_arrival(before_sending(self._session, batch), batch)
            if tracker.is_sure_when_sent:
                self._keep(self._session)
        return len(waiting)

    @property
    def _kept(self) -> Sent:
        """What is known for sure."""
        return self._tracked.sent.get(self._destination, Sent())

    def _keep(self, sent: Sent) -> None:
        self._tracked = replace(self._tracked, sent={**self._tracked.sent, self._destination: sent})
        write_tracked(self._folder, self._tracked, name=self._name)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What `send_run` has done."""

    num_points: int
    """How many points were sent; those that the tracker had are not counted."""
    destination: str
    address: str | None
    """Where a browser shows the run, if the tracker says."""


def send_run(
    folder: RunFolder, *, name: str, make_tracker: Callable[[], Tracker], run_name: str | None = None
) -> Delivery:
    """Send a run to a tracker, as far as the tracker lacks it, and wait until everything has arrived.

    Raises:
        UserError: the run cannot be read, another process is sending it, or the tracker failed.
    """
    with only_sender(folder, name=name):
        sender = Sender(folder, name=name, make_tracker=make_tracker, run_name=run_name)
        try:
            number = sender.update()
            delivery = Delivery(number, sender.destination, sender.address)
            sender.close()
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # whatever a tracker's library raises
            raise TrackerFailed(
                f"{name}: {type(error).__name__}: {error}; the same command sends what is missing"
            ) from error
    return delivery
