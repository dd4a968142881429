"""Rows of a matrix, found in a checkpoint that holds other rows of it."""

from hypothesis import given
from hypothesis import strategies as st

from dstrain.checkpoint.rows import RowsOf, find_pieces

NUM_ALL = 12
ROWS = st.none() | st.sets(st.integers(0, NUM_ALL - 1), min_size=1).map(lambda ids: tuple(sorted(ids)))


@given(own=ROWS, saved=ROWS, width=st.integers(1, 4), window=st.tuples(st.integers(0, 48), st.integers(0, 48)))
def test_each_element_is_found_where_it_was_saved(
    own: tuple[int, ...] | None, saved: tuple[int, ...] | None, width: int, window: tuple[int, int]
) -> None:
    rows = RowsOf(own, saved, NUM_ALL, width)
    mine, theirs = ([*range(NUM_ALL)] if each is None else [*each] for each in (own, saved))
    start, stop = sorted(min(edge, len(mine) * width) for edge in window)
    expected = {
        element: theirs.index(mine[element // width]) * width + element % width
        for element in range(start, stop)
        if mine[element // width] in theirs
    }
    pieces = list(find_pieces(start, stop, rows=rows))
    found = {
        element: piece.saved_start + element - piece.start
        for piece in pieces
        for element in range(piece.start, piece.stop)
    }
    assert found == expected
    assert len(found) == sum(piece.stop - piece.start for piece in pieces)
    assert rows.saved_numel == len(theirs) * width


def test_rows_that_follow_each_other_on_both_sides_are_one_piece() -> None:
    pieces = list(find_pieces(0, 10, rows=RowsOf((2, 3, 4, 7, 8), None, NUM_ALL, 2)))
    assert [(piece.start, piece.stop, piece.saved_start) for piece in pieces] == [(0, 6, 4), (6, 10, 14)]
