"""What a tracker must still be sent, and what is known of it after each step of sending. Pure.

A point is noted as unsure before it is sent, and as there afterwards. A process that is killed in between leaves it unsure: it is
sent again under the same number, so that the tracker can leave out what it has.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from dstrain.run_folder.tracked import PointKey, Sent
from dstrain.tracking.points import TRAIN
from dstrain.tracking.tracker import Point


def points_to_send(points: Sequence[Point], *, sent: Sent) -> list[Point]:
    """Those of a run's `points` that a destination lacks: unsure ones under their old numbers, then the others.

    A step that was sent is not sent again, although a resumed run has repeated it: it has computed the same.
    """
    by_key = {point.key: point for point in points}
    again = [
        replace(by_key[part, step], number=number, is_unsure=True)
        for part, step, number in sent.unsure
        if (part, step) in by_key
    ]
    known = {(part, step) for part, step, _ in sent.unsure}
    known |= {(part, step) for part, steps in sent.steps.items() for step in steps}
    new = (
        point
        for point in points
        if point.key not in known and not (point.part == TRAIN and point.step <= sent.train_step)
    )
    return [*again, *(replace(point, number=number) for number, point in enumerate(new, start=sent.next_number))]


def before_sending(sent: Sent, points: Sequence[Point]) -> Sent:
    """What is known when these points are about to be sent."""
    new = [point for point in points if not point.is_unsure]
    if not new:
        return sent
    noted = tuple((point.part, point.step, point.number) for point in new)
    return replace(sent, unsure=(*sent.unsure, *noted), next_number=new[-1].number + 1)


def after_arrival(sent: Sent, points: Iterable[Point]) -> Sent:
    """What is known when these points have arrived."""
    return _arrived(sent, {point.key for point in points})


def after_opening(sent: Sent, *, num_there: int | None) -> Sent:
    """What is known when the destination has said how many points it has; None if it could not tell."""
    if num_there is None:
        return sent
    if num_there == 0:
        return Sent()
    known = _arrived(sent, {(part, step) for part, step, number in sent.unsure if number < num_there})
    # what is left never arrived, and gets numbers that come after those that did
    return replace(known, unsure=(), next_number=num_there)


def _arrived(sent: Sent, keys: set[PointKey]) -> Sent:
    steps = {part: set(of_part) for part, of_part in sent.steps.items()}
    for part, step in keys:
        if part != TRAIN:
            steps.setdefault(part, set()).add(step)
    return replace(
        sent,
        train_step=max([sent.train_step, *(step for part, step in keys if part == TRAIN)]),
        steps={part: tuple(sorted(of_part)) for part, of_part in steps.items()},
        unsure=tuple(each for each in sent.unsure if each[:2] not in keys),
    )
