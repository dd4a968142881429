"""Micro-batches of a step: no row lost, the budget kept, and no padding that another cut would save."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrain.data.arrays import Rows
from dstrain.data.cuts import MANY_MICRO_BATCHES, Cut, cut_step, longest, padded_tokens
from tests.unit.data.length_cases import CUTS, LENGTHS, build_arrays


@given(LENGTHS, CUTS)
def test_micro_batches_keep_the_budget_and_lose_no_row(lengths: list[tuple[int, int]], cut: Cut) -> None:
    sources, targets = build_arrays(lengths)
    micro_batches = cut_step(sources, targets, cut=cut)
    assert sorted(np.concatenate(micro_batches).tolist()) == list(range(len(lengths)))
    assert len(micro_batches) >= min(cut.min_micro_batches, len(lengths))
    for rows in micro_batches:
        if cut.micro_batch_size is not None:
            assert len(rows) <= cut.micro_batch_size
        elif len(rows) > 1:
            assert len(rows) * int(sources[rows].max() + targets[rows].max()) <= cut.micro_batch_tokens
    widths = [int(sources[rows].max() + targets[rows].max()) for rows in micro_batches]
    assert widths == sorted(widths, reverse=True)


def test_the_last_two_micro_batches_share_what_is_left() -> None:
    lengths = np.full(21, 5, dtype=np.int32)
    assert [len(rows) for rows in cut_step(lengths, lengths, cut=Cut(micro_batch_tokens=90))] == [9, 6, 6]


@given(LENGTHS, st.integers(1, 400), st.integers(0, 60))
def test_no_further_cut_saves_more_padding_than_a_micro_batch_costs(
    lengths: list[tuple[int, int]], max_tokens: int, overhead: int
) -> None:
    sides = np.asarray(lengths).T
    micro_batches = cut_step(*sides, cut=Cut(max_tokens, micro_batch_overhead=overhead))
    for rows in micro_batches:
        for side in (0, 1):
            ordered = sides[:, rows[np.argsort(sides[side, rows], kind="stable")]]
            for place in range(1, len(rows)):  # every cut between rows sorted by that side
                halves = padded_tokens(*ordered[:, :place]) + padded_tokens(*ordered[:, place:])
                is_between = ordered[side, place - 1] < ordered[side, place]
                assert not is_between or halves + overhead >= padded_tokens(*ordered)


def test_rows_of_two_kinds_are_cut_where_the_kinds_part_whichever_side_tells_them_apart() -> None:
    short_source, short_target = (5, 30), (30, 5)
    sides = np.asarray([short_source, short_target] * 10).T
    cut = Cut(micro_batch_tokens=10_000, micro_batch_overhead=100)
    assert [rows.tolist() for rows in cut_step(*sides, cut=cut)] == [list(range(1, 20, 2)), list(range(0, 20, 2))]
    # together 20 × 60 tokens, apart 700
    assert len(cut_step(*sides, cut=replace(cut, micro_batch_overhead=500))) == 1
    assert len(cut_step(*sides, cut=replace(cut, micro_batch_overhead=499))) == 2


def _cut_buckets(*buckets: tuple[int, int, int], cut: Cut) -> list[Rows]:
    """The micro-batches of a step of buckets, each of so many rows of one source and one target length."""
    sides = [np.repeat([bucket[side] for bucket in buckets], [bucket[0] for bucket in buckets]) for side in (1, 2)]
    micro_batches = cut_step(*sides, cut=cut, bucket_ends=np.cumsum([bucket[0] for bucket in buckets]))
    assert sorted(np.concatenate(micro_batches).tolist()) == list(range(len(sides[0])))
    return micro_batches


def test_buckets_share_no_micro_batch_whatever_the_budget() -> None:
    micro_batches = _cut_buckets((3, 9, 9), (4, 30, 30), cut=Cut(micro_batch_tokens=10_000))
    assert [rows.tolist() for rows in micro_batches] == [[3, 4, 5, 6], [0, 1, 2]]
    assert len(_cut_buckets((3, 9, 9), (4, 30, 30), cut=Cut(1, micro_batch_size=16))) == 2


def test_a_bucket_over_the_budget_is_cut_by_itself() -> None:
    micro_batches = _cut_buckets((10, 5, 5), (4, 30, 30), cut=Cut(micro_batch_tokens=60))
    assert [len(rows) for rows in micro_batches] == [1, 1, 1, 1, 5, 5]


def test_a_pinned_size_makes_micro_batches_of_exactly_that_size() -> None:
    lengths = np.arange(1, 513, dtype=np.int32)
    micro_batches = cut_step(lengths, lengths, cut=Cut(micro_batch_tokens=8, micro_batch_size=16))
    assert [len(rows) for rows in micro_batches] == [16] * 32


def test_the_heaviest_micro_batch_is_split_for_more_ranks() -> None:
    lengths = np.full(10, 5, dtype=np.int32)
    micro_batches = cut_step(lengths, lengths, cut=Cut(micro_batch_tokens=1000, min_micro_batches=4))
    assert sorted(len(rows) for rows in micro_batches) == [2, 2, 3, 3]


def test_a_step_of_very_many_micro_batches_keeps_the_budget_and_loses_no_row() -> None:
    sides = np.random.default_rng(3).integers(1, 60, size=(2, 4000))
    micro_batches = cut_step(*sides, cut=Cut(micro_batch_tokens=500))
    assert len(micro_batches) > MANY_MICRO_BATCHES
    assert sorted(np.concatenate(micro_batches).tolist()) == list(range(4000))
    assert max(padded_tokens(*sides[:, rows]) for rows in micro_batches) <= 500


@given(LENGTHS, st.integers(1, 200))
def test_the_longest_of_each_micro_batch_is_its_own_maximum(lengths: list[tuple[int, int]], max_tokens: int) -> None:
    sources, targets = build_arrays(lengths)
    micro_batches = cut_step(sources, targets, cut=Cut(max_tokens))
    assert longest(sources, micro_batches=micro_batches).tolist() == [sources[rows].max() for rows in micro_batches]


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_no_micro_batches_have_no_longest(dtype: type) -> None:
    assert longest(np.ones(3, dtype=dtype), micro_batches=[]).tolist() == []
