"""The plan: every row once an epoch, the same steps for everybody, found without a walk through what went before."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrain.data.plan import (
    FILLER,
    Cut,
    Lengths,
    Plan,
    Position,
    cut_step,
    deal,
    plan_token_steps,
)

LENGTHS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=120)
CUTS = st.builds(
    Cut,
    micro_batch_tokens=st.integers(1, 600),
    micro_batch_size=st.none() | st.integers(1, 20),
    min_micro_batches=st.integers(1, 9),
)


def _arrays(lengths: list[tuple[int, int]]) -> tuple[Lengths, Lengths]:
    pairs = np.asarray(lengths, dtype=np.int32)
    return pairs[:, 0], pairs[:, 1]


def _plan(lengths: list[tuple[int, int]] | None = None, **changes: Any) -> Plan:
    given_ = lengths or [(index % 13 + 2, index % 7 + 2) for index in range(100)]
    settings_: dict[str, Any] = {
        "fingerprint": "data",
        "seed": 42,
        "batch_size": 16,
        "batch_unit": "sequences",
        "cut": Cut(micro_batch_tokens=128),
    }
    return Plan(*_arrays(given_), **{**settings_, **changes})


class _Recorder(np.ndarray[Any, Any]):
    """Lengths that remember how many of them were looked at."""

    num_read = 0

    def __getitem__(self, index: Any) -> Any:
        found = np.asarray(super().__getitem__(index))
        _Recorder.num_read += found.size
        return found


@given(LENGTHS, CUTS, st.integers(1, 150), st.sampled_from(["sequences", "target_tokens"]), st.integers(1, 40))
def test_every_row_comes_exactly_once_an_epoch(
    lengths: list[tuple[int, int]], cut: Cut, batch_size: int, batch_unit: Any, window_rows: int
) -> None:
    plan = _plan(lengths, cut=cut, batch_size=batch_size, batch_unit=batch_unit, window_rows=window_rows)
    position, rows, in_micro_batches = Position(3, 0), [], []
    for _ in range(plan.num_steps(3)):
        step = plan.step(position)
        rows += step.rows.tolist()
        in_micro_batches += np.concatenate(step.micro_batches).tolist()
        assert step.num_target_tokens == sum(lengths[row][1] for row in step.rows)
        assert sorted(step.rows) == sorted(np.concatenate(step.micro_batches))
        position = step.next_position
    assert position == Position(4, 0)
    assert sorted(rows) == sorted(in_micro_batches) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 200), st.integers(1, 50))
def test_a_step_of_target_tokens_is_full_but_never_over(
    lengths: list[tuple[int, int]], batch_size: int, window_rows: int
) -> None:
    plan = _plan(lengths, batch_size=batch_size, batch_unit="target_tokens", window_rows=window_rows)
    order = [row for step in range(plan.num_steps(0)) for row in plan.step(Position(0, step)).rows.tolist()]
    expected, place = [], 0
    while place < len(order):  # the rule in its plainest words
        window_end = (place // window_rows + 1) * window_rows
        step = [order[place]]
        for row in order[place + 1 : window_end]:
            if sum(lengths[other][1] for other in [*step, row]) > batch_size:
                break
            step.append(row)
        expected.append(step)
        place += len(step)
    assert [plan.step(Position(0, step)).rows.tolist() for step in range(plan.num_steps(0))] == expected


def test_a_step_of_sequences_is_the_next_part_of_the_order() -> None:
    steps = [_plan().step(Position(0, step)).rows for step in range(7)]
    whole = _plan(batch_size=100).step(Position(0, 0)).rows
    assert [len(step) for step in steps] == [16, 16, 16, 16, 16, 16, 4]
    assert np.concatenate(steps).tolist() == whole.tolist()


def test_the_order_of_rows_is_pinned_so_that_old_checkpoints_keep_their_data() -> None:
    step = _plan(batch_size=6, cut=Cut(micro_batch_tokens=40)).step(Position(1, 2))
    assert step.rows.tolist() == [95, 20, 21, 60, 11, 53]
    assert [piece.tolist() for piece in step.micro_batches] == [[20], [11, 60], [95, 53], [21]]


def test_the_order_of_rows_does_not_depend_on_how_steps_are_cut() -> None:
    cuts = [Cut(64), Cut(4096), Cut(64, micro_batch_size=3), Cut(64, min_micro_batches=8)]
    orders = [[_plan(cut=cut).step(Position(0, step)).rows.tolist() for step in range(7)] for cut in cuts]
    assert all(order == orders[0] for order in orders)


def test_changed_data_another_seed_and_another_epoch_give_another_order() -> None:
    first = [
        _plan().step(Position(0, 0)),
        _plan().step(Position(1, 0)),
        _plan(seed=43).step(Position(0, 0)),
        _plan(fingerprint="changed").step(Position(0, 0)),
    ]
    assert len({tuple(step.rows.tolist()) for step in first}) == 4


@pytest.mark.parametrize("step", [-1, 7, 1000])
def test_a_position_outside_the_epoch_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match=rf"epoch 0 has no step {step}: it has 7 steps.*batch_size"):
        _plan().step(Position(0, step))


def test_no_rows_are_refused() -> None:
    empty = np.empty(0, dtype=np.int32)
    with pytest.raises(ValueError, match=r"data\.train has no rows"):
        Plan(empty, empty, fingerprint="", seed=0, batch_size=1, batch_unit="sequences", cut=Cut(1))


def test_the_steps_of_whole_and_of_broken_epochs_are_counted() -> None:
    plan = _plan([(3, 3)] * 100, batch_size=10)
    assert plan.num_steps(0) == 10
    assert plan.total_steps(epochs=1) == 10
    assert plan.total_steps(epochs=6.0) == 60
    assert plan.total_steps(epochs=2.5) == 25
    assert plan.total_steps(epochs=0.5) == 5
    assert plan.total_steps(epochs=0.1 + 0.2) == 3
    assert plan.total_steps(epochs=0.31) == 4
    assert plan.total_steps(epochs=0.0001) == 1
    assert plan.total_steps(max_steps=7) == 7


def test_the_steps_of_each_epoch_count_where_they_differ() -> None:
    plan = _plan([(1, index % 19 + 1) for index in range(200)], batch_size=40, batch_unit="target_tokens")
    counts = [plan.num_steps(epoch) for epoch in range(4)]
    assert len(set(counts)) > 1
    assert plan.total_steps(epochs=4) == sum(counts)


def test_an_epoch_is_told_from_a_position() -> None:
    plan = _plan([(3, 3)] * 100, batch_size=10)
    assert plan.epoch_at(Position(0, 0)) == 0.0
    assert plan.epoch_at(Position(2, 5)) == 2.5


def test_a_billion_rows_are_planned_without_looking_at_them() -> None:
    lengths = np.broadcast_to(np.int32(20), (10**9,)).view(_Recorder)
    plan = Plan(lengths, lengths, fingerprint="big", seed=1, batch_size=512, batch_unit="sequences", cut=Cut(4096))
    _Recorder.num_read = 0
    assert plan.total_steps(epochs=3) == 3 * 1_953_125
    step = plan.step(Position(2, 1_900_000))
    assert len(set(step.rows.tolist())) == 512
    assert step.rows.max() > 9 * 10**8
    assert _Recorder.num_read == 2 * 512


def test_steps_of_target_tokens_read_every_length_once_and_then_one_window() -> None:
    lengths = np.broadcast_to(np.int32(20), (10_000,)).view(_Recorder)
    plan = Plan(
        lengths,
        lengths,
        fingerprint="data",
        seed=1,
        batch_size=200,
        batch_unit="target_tokens",
        cut=Cut(4096),
        window_rows=500,
    )
    _Recorder.num_read = 0
    assert plan.num_steps(5) == 1000
    assert _Recorder.num_read == 10_000
    plan.step(Position(5, 700))
    assert _Recorder.num_read == 10_000 + 500 + 2 * 10
    plan.step(Position(5, 701))
    assert _Recorder.num_read == 10_000 + 500 + 4 * 10


def test_a_row_longer_than_the_step_is_a_step_alone() -> None:
    assert plan_token_steps(np.asarray([3, 90, 3, 4, 4]), max_tokens=10).tolist() == [1, 2, 4, 5]


@given(LENGTHS, CUTS)
def test_micro_batches_keep_the_budget_and_lose_no_row(lengths: list[tuple[int, int]], cut: Cut) -> None:
    sources, targets = _arrays(lengths)
    pieces = cut_step(sources, targets, cut=cut)
    assert sorted(np.concatenate(pieces).tolist()) == list(range(len(lengths)))
    assert len(pieces) >= min(cut.min_micro_batches, len(lengths))
    for piece in pieces:
        if cut.micro_batch_size is not None:
            assert len(piece) <= cut.micro_batch_size
        elif len(piece) > 1:
            assert len(piece) * int(sources[piece].max() + targets[piece].max()) <= cut.micro_batch_tokens
    sizes = [(lengths[place][1], lengths[place][0]) for piece in pieces for place in piece]
    assert sizes == sorted(sizes, reverse=True)


def test_a_pinned_size_gives_micro_batches_of_exactly_that_size() -> None:
    lengths = np.arange(1, 513, dtype=np.int32)
    pieces = cut_step(lengths, lengths, cut=Cut(micro_batch_tokens=8, micro_batch_size=16))
    assert [len(piece) for piece in pieces] == [16] * 32


def test_the_heaviest_micro_batch_is_split_for_more_ranks() -> None:
    lengths = np.full(10, 5, dtype=np.int32)
    pieces = cut_step(lengths, lengths, cut=Cut(micro_batch_tokens=1000, min_micro_batches=4))
    assert sorted(len(piece) for piece in pieces) == [2, 2, 3, 3]


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=60), st.integers(1, 17))
def test_every_micro_batch_is_dealt_once_and_all_ranks_have_equally_many(costs: list[int], world_size: int) -> None:
    dealt = deal(costs, world_size=world_size)
    assert len(dealt) == world_size
    assert {len(mine) for mine in dealt} == {-(-len(costs) // world_size)}
    counted = Counter(index for mine in dealt for index in mine)
    num_fillers = counted.pop(FILLER, 0)
    assert counted == Counter(range(len(costs)))
    assert num_fillers < world_size


def test_micro_batches_are_dealt_so_that_no_rank_waits_long() -> None:
    assert deal([9, 8, 3, 2], world_size=2) == [[0, 3], [1, 2]]
    assert deal([5, 5, 5], world_size=2) == [[0, 2], [1, FILLER]]
    assert deal([7], world_size=3) == [[0], [FILLER], [FILLER]]
    assert deal([1, 9, 4], world_size=1) == [[1, 2, 0]]
