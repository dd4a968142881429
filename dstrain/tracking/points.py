"""The points of a run: every training row and every score, under the names that trackers show. Pure."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime

from dstrain.run_folder.record import RunRecord
from dstrain.run_folder.rows import EvalRow, TrainRow
from dstrain.run_folder.scores import Scores
from dstrain.tracking.tracker import Point

TRAIN = "train"
"""The part of the training rows."""
_NO_NUMBERS = ("step", "lease")


def points_of(record: RunRecord) -> list[Point]:
    """All points of a run by step, those of training first. Scores of other programs are points of their own: they come later."""
    clock = _Clock(record)
    points = [Point(TRAIN, row.step, _train_values(row), clock(row.step)) for row in record.train_rows]
    external = tuple(record.config.evaluation.external or ())
    for row in record.eval_rows:
        points += _score_points(row, part="eval", step=row.step, time=clock(row.step), external=external)
    for name, files in record.test_sets.items():
        for file in files:
            points += _score_points(
                file, part=f"test_sets/{name}", step=file.step, time=clock(file.step), external=external
            )
    if record.average is not None:
        step = max(record.average.steps)
        points += _score_points(record.average.scores, part="average", step=step, time=clock(step), external=external)
    return sorted(points, key=lambda point: (point.step, point.part != TRAIN, point.part))


class _Clock:
    """The time of a step: the run's first start and the seconds trained until the last row before."""

    def __init__(self, record: RunRecord) -> None:
        self._start = _seconds(next((event.time for event in record.events if event.event == "start"), ""))
        timed = [row for row in record.train_rows if row.elapsed_seconds is not None]
        self._steps = [row.step for row in timed]
        self._elapsed = [0.0, *(row.elapsed_seconds or 0.0 for row in timed)]

    def __call__(self, step: int) -> float:
        return self._start + self._elapsed[bisect_right(self._steps, step)]


def _seconds(text: str) -> float:
    """The time of an event in seconds since 1970; 0 if an earlier version wrote none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _train_values(row: TrainRow) -> dict[str, float]:
    values = {each.name: getattr(row, each.name) for each in fields(row) if each.name not in _NO_NUMBERS}
    return {f"train/{name}": float(value) for name, value in values.items() if value is not None}


def _score_points(scores: Scores, *, part: str, step: int, time: float, external: Sequence[str]) -> Iterator[Point]:
    """The scores over all rows, of sets and of groups, with intervals and output rates; then those of other programs."""
    values = {f"{part}/{name}": value for name, value in scores.scores.items() if name not in external}
    for group, of_group in scores.groups.items():
        values |= {f"{part}/{group}/{name}": value for name, value in of_group.items()}
    values |= {f"{part}_intervals/{name}": value for name, value in scores.intervals.items()}
    values |= {f"{part}_outputs/{name}": rate.hypotheses for name, rate in scores.outputs.items()}
    values |= _place_in_training(scores, part=part)
    if values:
        yield Point(part, step, values, time)
    for name in external:
        if name in scores.scores:
            yield Point(f"{part}/{name}", step, {f"{part}/{name}": scores.scores[name]}, time)


def _place_in_training(scores: Scores, *, part: str) -> Mapping[str, float]:
    """What only the run's own evaluations have."""
    if not isinstance(scores, EvalRow):
        return {}
    train_loss = {} if scores.train_loss is None else {f"{part}/train_loss": scores.train_loss}
    return {f"{part}/epoch": scores.epoch, **train_loss}
