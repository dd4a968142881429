"""Buckets: rows of similar lengths next to each other, and steps that share the remaining rows evenly."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrain.data.buckets import order_by_similarity, plan_layout, plan_token_steps
from dstrain.data.cuts import padded_tokens
from dstrain.data.permutation import permutation_keys
from tests.unit.data.length_cases import LENGTHS


def _tokens(lengths: list[int], *, max_tokens: int) -> list[int]:
    ends = plan_token_steps(np.asarray(lengths), max_tokens=max_tokens).tolist()
    return [sum(lengths[start:stop]) for start, stop in pairwise([0, *ends])]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(1, 200))
def test_steps_are_filled_in_order_and_the_last_two_share_evenly(lengths: list[int], max_tokens: int) -> None:
    expected, place = [], 0
    while place < len(lengths):  # the rule in its plainest words
        stop = place + 1
        while stop < len(lengths) and sum(lengths[place : stop + 1]) <= max_tokens:
            stop += 1
        expected.append(sum(lengths[place:stop]))
        last, place = place, stop
    found = _tokens(lengths, max_tokens=max_tokens)
    assert len(found) == len(expected)
    assert found[:-2] == expected[:-2]
    assert sum(found) == sum(lengths)
    if len(expected) > 1:
        first = last - _rows_before(lengths, end=last, tokens=expected[-2])
        both = lengths[first:]
        assert max(found[-2:]) == min(max(sum(both[:cut]), sum(both[cut:])) for cut in range(1, len(both)))


def _rows_before(lengths: list[int], *, end: int, tokens: int) -> int:
    return next(count for count in range(1, end + 1) if sum(lengths[end - count : end]) == tokens)


def test_a_row_longer_than_the_step_is_a_step_alone() -> None:
    assert _tokens([3, 90, 3, 4, 4], max_tokens=10) == [3, 90, 7, 4]
    assert _tokens([90, 3, 4], max_tokens=10) == [90, 7]


@given(LENGTHS, st.integers(1, 200), st.floats(0.1, 3.0), st.booleans())
def test_the_order_by_similarity_has_every_row_once(
    lengths: list[tuple[int, int]], bucket_tokens: int, width: float, is_rising: bool
) -> None:
    sides = np.asarray(lengths).T
    order = order_by_similarity(*sides, bucket_tokens=bucket_tokens, width=width, is_rising=is_rising)
    assert sorted(order.tolist()) == list(range(len(lengths)))


def test_rows_of_equal_length_keep_their_order() -> None:
    lengths = np.asarray([(3, 4), (9, 9), (3, 4), (9, 9), (3, 4)]).T
    assert order_by_similarity(*lengths, bucket_tokens=9).tolist() == [1, 3, 0, 2, 4]


@pytest.mark.parametrize("scale", [1, 2000])
def test_lengths_beyond_16_bits_are_ordered_like_others(scale: int) -> None:
    random = np.random.default_rng(3)
    sides = random.integers(1, 60, size=(2, 500))
    order = order_by_similarity(*(sides * scale), bucket_tokens=400 * scale)
    assert order.tolist() == order_by_similarity(*sides, bucket_tokens=400).tolist()


def test_both_sides_of_a_bucket_are_similar_where_sorting_leaves_one_at_random() -> None:
    random = np.random.default_rng(3)
    sides = random.integers(1, 60, size=(2, 5000))

    def padded(order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> int:
        parts = np.split(order, plan_token_steps(sides[1][order], max_tokens=1024)[:-1])
        return sum(padded_tokens(*sides[:, part]) for part in parts)

    by_target = np.lexsort((sides[0], sides[1]))
    assert padded(order_by_similarity(*sides, bucket_tokens=1024)) - sides.sum() < (padded(by_target) - sides.sum()) / 2


def test_a_long_row_never_makes_a_step_of_several_buckets_too_large() -> None:
    # a bucket of 4,100 tokens a step holds 2,050: one row of 3,000 and any other bucket are more than a step
    targets = np.asarray([3000] * 5 + [20] * 2000)
    layout = plan_layout(targets, targets, max_tokens=4100, keys=permutation_keys("", seed=0, epoch=0, window=0))
    steps = np.split(targets[layout.order], layout.step_ends[:-1])
    assert max(step.sum() for step in steps) <= 4100
    assert set(layout.step_ends) <= set(layout.bucket_ends)


def test_another_window_or_epoch_draws_other_buckets() -> None:
    sides = np.random.default_rng(3).integers(1, 60, size=(2, 5000))
    keys = [permutation_keys("", seed=0, epoch=epoch, window=window) for epoch in (0, 1) for window in (0, 1)]
    layouts = [plan_layout(*sides, max_tokens=512, keys=each) for each in [*keys, keys[0]]]
    members = [
        {frozenset(bucket.tolist()) for bucket in np.split(each.order, each.bucket_ends[:-1])} for each in layouts
    ]
    assert layouts[4].order.tolist() == layouts[0].order.tolist()
    for other in (1, 2, 3):
        # some buckets, such as those of a few lengths alone, come again
        assert len(members[0] & members[other]) < len(members[0]) / 2
