"""Which evaluations and rows are shown where there are too many: always the same ones, and the important ones."""

from itertools import pairwise

import pytest

from dstrain.html_report.thinning import draw, spread


@pytest.mark.parametrize(("number", "most"), [(0, 5), (5, 5), (4, 5)])
def test_nothing_is_left_out_where_there_is_room(number: int, most: int) -> None:
    assert spread(number, most=most) == list(range(number))
    assert draw([str(each) for each in range(number)], most=most) == list(range(number))


@pytest.mark.parametrize(
    ("number", "most", "keep"), [(100, 20, [37]), (21, 20, [1]), (1000, 3, [500]), (30, 20, [0, 29])]
)
def test_the_first_the_last_and_the_best_are_kept_and_others_between(number: int, most: int, keep: list[int]) -> None:
    chosen = spread(number, most=most, keep=keep)
    assert len(chosen) == most
    assert chosen == sorted(set(chosen))
    assert {0, number - 1, *keep} <= set(chosen)
    gaps = [after - before for before, after in pairwise(chosen)]
    assert max(gaps) <= 2 * number / max(1, most - 2)


def test_rows_are_drawn_by_what_they_are_so_that_two_runs_show_the_same_ones() -> None:
    keys = [f"eval.tsv:{row}" for row in range(1000)]
    chosen = draw(keys, most=100)
    assert chosen == sorted(chosen)
    assert len(set(chosen)) == 100
    other = [keys[0], *reversed(keys[1:])]
    assert {other[place] for place in draw(other, most=100)} == {keys[place] for place in chosen}
    assert {keys[place] for place in draw(keys, most=50)} <= {keys[place] for place in chosen}
