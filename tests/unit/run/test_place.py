"""Where a run goes on in the data: every row once in an epoch, whatever was changed in the middle of it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dstrain.checkpoint.changes import Change, find_parts
from dstrain.checkpoint.manifest import CheckpointError
from dstrain.checkpoint.resume import Resume
from dstrain.checkpoint.state import EpochPart, RunState
from dstrain.config.schema import RunConfig
from dstrain.data.cuts import Cut
from dstrain.data.plan import Position
from dstrain.run.place import Place, TrainingRows, find_place
from tests.unit.run.run_cases import build_config

NUM_ROWS = 100


def rows_of(num_rows: int = NUM_ROWS, *, fingerprint: str = "f") -> TrainingRows:
    lengths = np.arange(num_rows, dtype=np.int32) % 13 + 2
    return TrainingRows(lengths, lengths, fingerprint, Cut(1000))


def config_of(*, size: int = 16, unit: str = "sequences", seed: int = 1) -> RunConfig:
    return build_config(seed=seed, training__batch_size=size, training__batch_unit=unit)


def resume_at(position: Position, *changes: Change, parts: tuple[EpochPart, ...] = (), train: str = "f") -> Resume:
    state = RunState(
        step=50, epoch=position.epoch, step_in_epoch=position.step, cut={}, data={"train": "f"}, epoch_parts=parts
    )
    return Resume(Path(), state, 1, changes, find_parts(changes, old=state.data, new={"train": train}))


def train(place: Place, position: Position, *, num_steps: int | None = None) -> Iterator[int]:
    """The rows of the next steps, or of all that are left in the epoch."""
    epoch = position.epoch
    while position.epoch == epoch and num_steps != 0:
        step = place.plan.step(position)
        yield from step.rows.tolist()
        position, num_steps = step.next_position, None if num_steps is None else num_steps - 1


def test_a_new_run_begins_at_its_first_row_and_an_unchanged_one_where_it_was() -> None:
    new = find_place(config_of(), rows=rows_of(), resume=None)
    assert (new.position, new.epoch_parts, new.plan.rest, new.said) == (Position(0, 0), (), None, ())
    again = find_place(config_of(), rows=rows_of(), resume=resume_at(Position(2, 3)))
    assert (again.position, again.epoch_parts, again.plan.rest, again.said) == (Position(2, 3), (), None, ())


@pytest.mark.parametrize(
    ("now", "changes"),
    [
        ({"size": 8}, [Change("training.batch_size", 16, 8)]),
        ({"size": 50}, [Change("training.batch_size", 16, 50)]),
        ({"seed": 9}, [Change("seed", 1, 9)]),
        (
            {"size": 90, "unit": "target_tokens"},
            [Change("training.batch_size", 16, 90), Change("training.batch_unit", "sequences", "target_tokens")],
        ),
    ],
)
@pytest.mark.parametrize("done", [1, 3, 6])
def test_every_row_of_the_epoch_comes_once_and_the_next_epoch_is_a_whole_one(
    now: dict[str, Any], changes: list[Change], done: int
) -> None:
    before = find_place(config_of(), rows=rows_of(), resume=None)
    trained = list(train(before, Position(2, 0), num_steps=done))
    place = find_place(config_of(**now), rows=rows_of(), resume=resume_at(Position(2, done), *changes))
    assert place.position == Position(2, 0)
    assert place.epoch_parts == (EpochPart(seed=1, batch_size=16, batch_unit="sequences", num_steps=done),)
    assert sorted([*trained, *train(place, place.position)]) == list(range(NUM_ROWS))
    assert f"{16 * done} of 100 rows of epoch 3 are trained; the {NUM_ROWS - 16 * done} left" in place.said[0]
    fresh = find_place(config_of(**now), rows=rows_of(), resume=None)
    assert list(train(place, Position(3, 0))) == list(train(fresh, Position(3, 0)))


def test_a_place_that_was_converted_is_found_again_and_may_be_converted_again() -> None:
    first = find_place(config_of(), rows=rows_of(), resume=None)
    trained = list(train(first, Position(0, 0), num_steps=2))
    change = Change("training.batch_size", 16, 7)
    second = find_place(config_of(size=7), rows=rows_of(), resume=resume_at(Position(0, 2), change))
    trained += train(second, second.position, num_steps=3)
    saved = resume_at(Position(0, 3), parts=second.epoch_parts)
    again = find_place(config_of(size=7), rows=rows_of(), resume=saved)
    assert (again.position, again.said) == (Position(0, 3), ())
    assert sorted([*trained, *train(again, again.position)]) == list(range(NUM_ROWS))
    changes = Change("training.batch_size", 7, 60), Change("training.batch_unit", "sequences", "target_tokens")
    resume = resume_at(Position(0, 3), *changes, parts=second.epoch_parts)
    third = find_place(config_of(size=60, unit="target_tokens"), rows=rows_of(), resume=resume)
    assert len(third.epoch_parts) == 2
    assert sorted([*trained, *train(third, third.position)]) == list(range(NUM_ROWS))


def test_a_change_between_two_epochs_has_nothing_to_convert() -> None:
    change = Change("training.batch_size", 16, 8)
    place = find_place(config_of(size=8), rows=rows_of(), resume=resume_at(Position(2, 0), change))
    assert (place.position, place.epoch_parts, place.plan.rest, place.said) == (Position(2, 0), (), None, ())


def test_an_epoch_begins_again_where_its_rows_are_others() -> None:
    change = Change("data.train.0.max_rows", None, 40)
    parts = (EpochPart(seed=1, batch_size=4, batch_unit="sequences", num_steps=2),)
    resume = resume_at(Position(2, 3), change, Change("seed", 1, 2), parts=parts, train="g")
    place = find_place(config_of(seed=2), rows=rows_of(40, fingerprint="g"), resume=resume)
    assert (place.position, place.epoch_parts) == (Position(2, 0), ())
    assert sorted(train(place, place.position)) == list(range(40))
    assert place.said == ("the training rows are others: epoch 3 begins again, with its first row",)


def test_a_place_or_a_recipe_that_no_run_can_have_is_refused() -> None:
    change = Change("training.batch_size", 16, 8)
    with pytest.raises(CheckpointError, match="its place lies behind the end of epoch 3"):
        find_place(config_of(size=8), rows=rows_of(), resume=resume_at(Position(2, 99), change))
    for size in (0, "16", None):
        resume = resume_at(Position(2, 3), Change("training.batch_size", size, 8))
        with pytest.raises(CheckpointError, match=r"its recipe cannot be read \(.*batch_size"):
            find_place(config_of(size=8), rows=rows_of(), resume=resume)
