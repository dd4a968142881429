"""The rows of an epoch: each once in a random order, and what is left of them from any place on."""

from hypothesis import given
from hypothesis import strategies as st

from dstrain.data.epoch_rows import EpochRows
from dstrain.data.permutation import permutation_keys


def all_rows(num_rows: int) -> EpochRows:
    return EpochRows(num_rows, permutation_keys("data", seed=1, epoch=3))


@given(st.integers(1, 60), st.data())
def test_any_part_is_the_same_as_in_the_whole(num_rows: int, data: st.DataObject) -> None:
    rows = all_rows(num_rows)
    whole = rows.between(0, num_rows).tolist()
    assert sorted(whole) == list(range(num_rows))
    assert len(rows) == num_rows
    start = data.draw(st.integers(0, num_rows))
    stop = data.draw(st.integers(start, num_rows))
    assert rows.between(start, stop).tolist() == whole[start:stop]


@given(st.integers(1, 60), st.data())
def test_what_is_left_follows_rows_put_before_it_however_often_it_is_divided(
    num_rows: int, data: st.DataObject
) -> None:
    rows = all_rows(num_rows)
    for _ in range(3):
        before = rows.between(0, len(rows)).tolist()
        place = data.draw(st.integers(0, len(rows)))
        kept = data.draw(st.integers(0, place))  # of a window that is trained in another order, its last rows
        rows = rows.after(place, first=rows.between(kept, place)) if kept < place else rows.after(place)
        expected = before[kept:] if kept < place else before[place:]
        assert rows.between(0, len(rows)).tolist() == expected
        middle = len(expected) // 2
        assert rows.between(middle, len(rows)).tolist() == expected[middle:]
