"""The plan: every row once per epoch, the same steps on every rank, each found without planning the ones before."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrain.data.cuts import Cut
from dstrain.data.plan import FILLER, Plan, Position, Rest, deal, exclude_rows
from tests.unit.data.length_cases import CUTS, LENGTHS, build_arrays


def _plan(lengths: list[tuple[int, int]] | None = None, **changes: Any) -> Plan:
    given_ = lengths or [(index % 13 + 2, index % 7 + 2) for index in range(100)]
    settings_: dict[str, Any] = {
        "fingerprint": "data",
        "seed": 42,
        "batch_size": 16,
        "batch_unit": "sequences",
        "cut": Cut(micro_batch_tokens=128),
    }
    return Plan(*build_arrays(given_), **{**settings_, **changes})


def _drawn(num_rows: int) -> list[tuple[int, int]]:
    """Lengths of 2 to 60 tokens, mostly short."""
    random = np.random.default_rng(5)
    both = np.exp(random.normal(2.7, 0.5, num_rows))
    sides = (np.clip(both * np.exp(random.normal(0.0, 0.3, num_rows)), 2, 60).astype(int).tolist() for _ in range(2))
    return list(zip(*sides, strict=True))


class _Recorder(np.ndarray[Any, Any]):
    """Lengths that remember how many of them were looked at."""

    num_read = 0

    def __getitem__(self, index: Any) -> Any:
        found = np.asarray(super().__getitem__(index))
        _Recorder.num_read += found.size
        return found


@given(LENGTHS, CUTS, st.integers(1, 150), st.sampled_from(["sequences", "target_tokens"]), st.integers(1, 40))
def test_every_row_comes_exactly_once_per_epoch(
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
def test_a_step_of_target_tokens_is_never_over_and_all_but_two_of_a_window_are_full(
    lengths: list[tuple[int, int]], batch_size: int, window_rows: int
) -> None:
    plan = _plan(lengths, batch_size=batch_size, batch_unit="target_tokens", window_rows=window_rows)
    num_windows, longest_target = -(-len(lengths) // window_rows), max(target for _, target in lengths)
    steps = [plan.step(Position(0, step)) for step in range(plan.num_steps(0))]
    assert all(step.num_target_tokens <= batch_size or len(step.rows) == 1 for step in steps)
    short = [step.num_target_tokens for step in steps if step.num_target_tokens <= batch_size - longest_target]
    assert len(short) <= 2 * num_windows
    assert sum(tokens < batch_size / 2 - longest_target for tokens in short) <= num_windows
    assert len(steps) <= 2 * num_windows + sum(target for _, target in lengths) / max(1, batch_size - longest_target)


@pytest.mark.parametrize("batch_size", [700, 4096, 4097, 10_000, 65_536])
def test_the_last_two_steps_of_a_window_share_what_is_left(batch_size: int) -> None:
    lengths = _drawn(20_000)
    plan = _plan(lengths, batch_size=batch_size, batch_unit="target_tokens")
    tokens = [plan.step(Position(0, step)).num_target_tokens for step in range(plan.num_steps(0))]
    assert sum(tokens) == sum(target for _, target in lengths)
    # a bucket of rows of 60 tokens may lack 59, and the last two buckets lack half
    full = batch_size - 59 * -(-batch_size // 4096)
    assert sum(size < full for size in tokens) <= 4
    assert min(tokens) > 0.4 * batch_size


def test_windows_are_equally_long() -> None:
    plan = _plan([(5, 5)] * 101, batch_size=1000, batch_unit="target_tokens", window_rows=50)
    assert [len(plan.step(Position(0, step)).rows) for step in range(plan.num_steps(0))] == [33, 34, 34]


def test_each_window_has_an_order_of_its_own_for_its_buckets() -> None:
    lengths = [(5, 5)] * 200
    whole = _plan(lengths, batch_size=200).step(Position(0, 0)).rows
    plan = _plan(lengths, batch_size=10, batch_unit="target_tokens", window_rows=100)
    place_of = {row: place for place, row in enumerate(whole.tolist())}
    pairs = [[place_of[row] for row in plan.step(Position(0, step)).rows.tolist()] for step in range(100)]
    # rows of equal length stay in the order of the epoch, in buckets of two
    assert all(second == first + 1 for first, second in pairs)
    firsts = [first for first, _ in pairs]
    assert sorted(firsts[:50]) == list(range(0, 100, 2))
    assert firsts[:50] != sorted(firsts[:50])
    assert firsts[:50] != [first - 100 for first in firsts[50:]]


def test_the_steps_of_a_window_do_not_come_in_the_order_of_lengths() -> None:
    plan = _plan(_drawn(20_000), batch_size=1024, batch_unit="target_tokens")
    means = [plan.target_lengths[plan.step(Position(0, step)).rows].mean() for step in range(plan.num_steps(0))]
    ranks = np.argsort(np.argsort(means))
    # of 600 steps in random order, a correlation over 0.15 comes once in 4,000 times
    assert abs(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]) < 0.15


def test_large_steps_mix_rows_of_all_lengths_as_small_ones_cannot() -> None:
    def spread(batch_size: int) -> float:
        plan = _plan(_drawn(60_000), batch_size=batch_size, batch_unit="target_tokens")
        steps = [plan.step(Position(0, step)).rows for step in range(plan.num_steps(0))]
        return float(np.std([plan.target_lengths[rows].mean() for rows in steps]))

    alike, mixed = spread(4096), spread(65_536)
    assert alike > 5
    assert mixed < alike / 2


def test_other_rows_meet_in_the_next_epoch() -> None:
    plan = _plan(_drawn(20_000), batch_size=4096, batch_unit="target_tokens")
    step_of = [np.empty(20_000, dtype=np.int64) for _ in range(2)]
    for epoch, found in enumerate(step_of):
        for step in range(plan.num_steps(epoch)):
            found[plan.step(Position(epoch, step)).rows] = step
    first = np.bincount(step_of[0])
    both = np.unique(np.stack(step_of), axis=1, return_counts=True)[1]
    met = (first * (first - 1)).sum()
    assert (both * (both - 1)).sum() < 0.5 * met


def test_a_step_of_sequences_is_the_next_part_of_the_order() -> None:
    steps = [_plan().step(Position(0, step)).rows for step in range(7)]
    whole = _plan(batch_size=100).step(Position(0, 0)).rows
    assert [len(step) for step in steps] == [16, 16, 16, 16, 16, 16, 4]
    assert np.concatenate(steps).tolist() == whole.tolist()


def test_the_order_of_rows_is_pinned_so_that_old_checkpoints_keep_their_data() -> None:
    step = _plan(batch_size=6, cut=Cut(micro_batch_tokens=40)).step(Position(1, 2))
    assert step.rows.tolist() == [95, 20, 21, 60, 11, 53]
    assert [rows.tolist() for rows in step.micro_batches] == [[11, 60], [21, 20], [95, 53]]


def test_steps_of_target_tokens_are_pinned_too() -> None:
    plan = _plan(batch_size=30, batch_unit="target_tokens", cut=Cut(micro_batch_tokens=40), window_rows=60)
    assert plan.num_steps(1) == 19
    steps = [plan.step(Position(1, step)) for step in (0, 10, 18)]
    assert [step.rows.tolist() for step in steps] == [[23, 36, 49, 24, 37], [62, 10, 76, 89], [54, 67, 94, 3, 81]]
    assert [rows.tolist() for rows in steps[0].micro_batches] == [[24, 37], [23], [36, 49]]


@pytest.mark.parametrize(("batch_unit", "batch_size"), [("sequences", 16), ("target_tokens", 70)])
def test_the_order_of_rows_does_not_depend_on_how_steps_are_cut(batch_unit: str, batch_size: int) -> None:
    cuts = [Cut(64), Cut(4096), Cut(64, micro_batch_size=3), Cut(64, min_micro_batches=8)]
    plans = [_plan(cut=cut, batch_unit=batch_unit, batch_size=batch_size) for cut in cuts]
    orders = [[plan.step(Position(0, step)).rows.tolist() for step in range(plan.num_steps(0))] for plan in plans]
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
    lengths = [(1, index % 19 + 1) for index in range(200)]
    plan = _plan(lengths, batch_size=40, batch_unit="target_tokens", window_rows=30)
    counts = [plan.num_steps(epoch) for epoch in range(4)]
    assert len(set(counts)) > 1
    assert plan.total_steps(epochs=4) == sum(counts)


def test_epochs_passed_follow_from_a_position() -> None:
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


def _recorded_plan(*, num_rows: int, window_rows: int) -> Plan:
    """Steps of ten rows of 20 target tokens each."""
    lengths = np.broadcast_to(np.int32(20), (num_rows,)).view(_Recorder)
    return Plan(
        lengths,
        lengths,
        fingerprint="data",
        seed=1,
        batch_size=200,
        batch_unit="target_tokens",
        cut=Cut(4096),
        window_rows=window_rows,
    )


def test_steps_of_target_tokens_read_every_length_once_and_then_one_window() -> None:
    plan = _recorded_plan(num_rows=10_000, window_rows=500)
    _Recorder.num_read = 0
    assert plan.num_steps(5) == 1000
    assert _Recorder.num_read == 2 * 10_000
    plan.step(Position(5, 700))
    assert _Recorder.num_read == 2 * (10_000 + 500 + 10)
    plan.step(Position(5, 701))
    assert _Recorder.num_read == 2 * (10_000 + 500 + 20)


def test_two_windows_are_kept_and_the_one_used_longest_ago_is_dropped() -> None:
    plan = _recorded_plan(num_rows=3_000, window_rows=1_000)
    assert plan.num_steps(0) == 300

    def laid_out(step: int) -> bool:
        _Recorder.num_read = 0
        plan.step(Position(0, step))
        return _Recorder.num_read > 2 * 10

    # the windows begin with steps 0, 100 and 200; counting has left the last two laid out
    assert [laid_out(step) for step in (100, 200, 101, 0, 102, 200)] == [False, False, False, True, False, True]


def test_excluded_rows_leave_the_numbers_of_micro_batches_alone() -> None:
    plan = _plan(batch_size=6, cut=Cut(micro_batch_tokens=40))
    step = plan.step(Position(1, 2))
    assert [rows.tolist() for rows in step.micro_batches] == [[11, 60], [21, 20], [95, 53]]
    less = exclude_rows(step, excluded={21, 95, 53, 7}, target_lengths=plan.target_lengths)
    assert [rows.tolist() for rows in less.micro_batches] == [[11, 60], [20], []]
    assert less.rows.tolist() == [20, 60, 11]
    assert less.num_target_tokens == plan.target_lengths[less.rows].sum()
    assert exclude_rows(step, excluded={7}, target_lengths=plan.target_lengths) is step


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


BATCHES = st.tuples(st.integers(1, 60), st.sampled_from(["sequences", "target_tokens"]), st.integers(0, 9))
"""Batch size, its unit, and the steps that are trained before the next change."""


@given(LENGTHS, st.lists(BATCHES, min_size=2, max_size=4), st.integers(1, 40), st.integers(0, 3))
def test_every_row_comes_once_in_an_epoch_whose_batch_size_changes(
    lengths: list[tuple[int, int]], batches: list[tuple[int, Any, int]], window_rows: int, seed: int
) -> None:
    rest, rows = None, []
    for number, (batch_size, unit, num_steps) in enumerate(batches):
        changes = {"batch_size": batch_size, "batch_unit": unit, "window_rows": window_rows, "seed": seed + number}
        plan, position = _plan(lengths, rest=rest, **changes), Position(2, 0)
        left = plan.num_steps(2)
        assert plan.total_steps(epochs=3.0, done=7, start=position) == 7 + left
        if number + 1 < len(batches):
            left = min(left - 1, num_steps)
        for _ in range(left):
            step = plan.step(position)
            rows += step.rows.tolist()
            position = step.next_position
        rest = Rest(2, plan.rows_from(position))
    assert position == Position(3, 0)
    assert sorted(rows) == list(range(len(lengths)))
    assert sorted(plan.step(Position(3, 0)).rows) == sorted(_plan(lengths, **changes).step(Position(3, 0)).rows)


@pytest.mark.parametrize("unit", ["sequences", "target_tokens"])
@pytest.mark.parametrize("start", [Position(0, 0), Position(0, 3), Position(1, 0), Position(1, 2), Position(1, 6)])
@pytest.mark.parametrize("epochs", [2.0, 2.3, 4.75])
def test_the_steps_left_are_those_of_the_whole_training_less_those_before(
    unit: str, start: Position, epochs: float
) -> None:
    plan = _plan(batch_unit=unit, window_rows=30)
    before = sum(plan.num_steps(epoch) for epoch in range(start.epoch)) + start.step
    assert plan.total_steps(epochs=epochs, done=before, start=start) == plan.total_steps(epochs=epochs)


def test_no_step_is_left_behind_the_end() -> None:
    plan = _plan()  # seven steps an epoch
    assert plan.total_steps(epochs=0.5, done=9, start=Position(1, 2)) == 9
    assert plan.total_steps(epochs=1.2, done=9, start=Position(1, 2)) == 9
    assert plan.total_steps(max_steps=5, done=9, start=Position(1, 2)) == 5


def test_a_part_of_an_epoch_that_was_begun_otherwise_ends_where_its_share_of_rows_is_reached() -> None:
    rest = Rest(1, _plan().rows_from(Position(1, 2)))  # 32 of 100 rows are trained
    plan = _plan(batch_size=4, rest=rest)
    assert plan.total_steps(epochs=1.5, done=9, start=Position(1, 0)) == 9 + 5  # 20 rows, where 18 are wanted
    assert plan.total_steps(epochs=1.3, done=9, start=Position(1, 0)) == 9
    assert plan.epoch_at(Position(1, 5)) == pytest.approx(1.52)
