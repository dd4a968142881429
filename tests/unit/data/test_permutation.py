"""The keyed permutation: one row in every place, whatever the number of rows, and no memory spent on it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrain.data.permutation import permutation_keys, permute

KEYS = permutation_keys("fingerprint", seed=42, epoch=0)


def _whole(num_rows: int, *, seed: int = 42, epoch: int = 0, fingerprint: str = "fingerprint") -> list[int]:
    keys = permutation_keys(fingerprint, seed=seed, epoch=epoch)
    return permute(np.arange(num_rows), num_rows=num_rows, keys=keys).tolist()


@given(st.integers(1, 3000), st.integers(0, 2**32 - 1), st.integers(0, 1000))
def test_every_row_comes_exactly_once(num_rows: int, seed: int, epoch: int) -> None:
    assert sorted(_whole(num_rows, seed=seed, epoch=epoch)) == list(range(num_rows))


@given(st.integers(1, 10**12), st.data())
def test_a_part_equals_the_same_places_of_another_part(num_rows: int, data: st.DataObject) -> None:
    places = np.asarray(data.draw(st.lists(st.integers(0, num_rows - 1), min_size=1, max_size=30)))
    together = permute(places, num_rows=num_rows, keys=KEYS)
    alone = [int(permute(places[index : index + 1], num_rows=num_rows, keys=KEYS)[0]) for index in range(len(places))]
    assert together.tolist() == alone
    assert 0 <= together.min() <= together.max() < num_rows


def test_the_order_is_pinned_so_that_old_checkpoints_keep_their_data() -> None:
    assert _whole(12) == [3, 6, 4, 2, 10, 5, 7, 0, 11, 1, 8, 9]
    assert permute(np.arange(5), num_rows=10**9, keys=KEYS).tolist() == [
        721222518,
        379001664,
        43139696,
        370152547,
        37598744,
    ]


def test_the_order_differs_by_epoch_by_seed_and_by_data() -> None:
    orders = [_whole(50), _whole(50, epoch=1), _whole(50, seed=43), _whole(50, fingerprint="other")]
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("num_rows", [7, 24, 100])
def test_every_row_reaches_every_place_about_equally_often(num_rows: int) -> None:
    num_epochs = 4000
    counts = np.zeros((num_rows, num_rows))
    for epoch in range(num_epochs):
        counts[np.arange(num_rows), _whole(num_rows, epoch=epoch)] += 1
    expected = num_epochs / num_rows
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    freedom = (num_rows - 1) ** 2
    assert abs(chi_squared - freedom) < 5 * np.sqrt(2 * freedom)


def test_neighbours_in_the_data_are_not_neighbours_in_the_order() -> None:
    order = np.asarray(_whole(10_000))
    assert np.mean(np.abs(np.diff(order)) == 1) < 0.001
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.03
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.03
