"""TensorBoard: event files in the run folder, written again at every start, so that they hold each step once."""

from collections.abc import Iterable, Sequence
from typing import Any

from dstrain.run_folder.atomic import remove
from dstrain.run_folder.record import Status
from dstrain.tracking.tracker import Place, Point, TrackedRun, Tracker

_QUEUED = 1000
"""Events that wait for the thread that writes them."""
_EVENT_FILES = "events.out.tfevents.*"


class TensorBoard(Tracker):
    """One event file, which replaces those of earlier attempts."""

    package = "tensorboard"

    def __init__(self, place: Place) -> None:
        self._folder = place.folder
        self._writer: Any = None
        self._points: list[Point] = []
        self._last_steps: dict[str, int] = {}

    @property
    def destination(self) -> str:
        return "event files"

    def open(self, run: TrackedRun) -> int:
        self._begin_file()
        return 0

    def send(self, points: Sequence[Point]) -> None:
        self._points += points
        if self._goes_back(points):
            # TensorBoard takes an older step for a restart, and drops the later ones of its tags
            self._points.sort(key=lambda point: point.step)
            self._begin_file()
            self._write(self._points)
        else:
            self._write(points)
        self._writer.flush()

    def close(self, status: Status) -> None:
        self._writer.close()

    def _goes_back(self, points: Iterable[Point]) -> bool:
        """Whether one of the points is older than another of its part, which was there before."""
        found = False
        for point in points:
            last = self._last_steps.get(point.part, -1)
            found |= point.step < last
            self._last_steps[point.part] = max(last, point.step)
        return found

    def _begin_file(self) -> None:
        from tensorboard.compat.proto import event_pb2  # optional
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        earlier = list(self._folder.glob(_EVENT_FILES))
        if self._writer is not None:
            self._writer.close()
        self._writer = EventFileWriter(str(self._folder), max_queue_size=_QUEUED)
        # a TensorBoard that is showing the earlier files drops what it has read of them
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._writer.add_event(event_pb2.Event(step=0, session_log=start))
        self._writer.flush()
        for path in earlier:
            remove(path)

    def _write(self, points: Iterable[Point]) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        for point in points:
            values = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
            summary = summary_pb2.Summary(value=values)
            self._writer.add_event(event_pb2.Event(step=point.step, wall_time=point.time, summary=summary))
