"""Tallies: counted in parts, they are those of all rows at once."""

import random

import numpy as np
import pytest

from dstrain.data.tally import NUM_SHOWN, Tally


def tally_of(numbers: list[int], *, first: int = 0) -> Tally:
    found = Tally()
    found.add(np.array(numbers), np.arange(first, first + len(numbers)))
    return found


def test_a_tally_joined_of_parts_is_that_of_the_whole_and_survives_a_file() -> None:
    draw = random.Random(0)
    numbers = [draw.randrange(9) for _ in range(300)]
    joined = Tally()
    for start in (0, 100, 200):
        joined.join(Tally.from_json(tally_of(numbers[start : start + 100], first=start).as_json()))
    assert joined == tally_of(numbers)
    assert joined.counts == {number: numbers.count(number) for number in set(numbers)}
    assert joined.lines[3] == [line for line, number in enumerate(numbers) if number == 3][:NUM_SHOWN]


def test_rows_among_several_numbers_are_listed_by_line() -> None:
    assert tally_of([1, 2, 3, 2, 1]).among([1, 2, 7]) == (4, [0, 1, 3, 4])
    assert Tally().among([1]) == (0, [])


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.99, 1.0])
def test_percentiles_are_those_of_numpy(share: float) -> None:
    draw = random.Random(1)
    numbers = [draw.randrange(50) for _ in range(1001)]
    expected = np.percentile(numbers, 100 * share, method="inverted_cdf")
    assert tally_of(numbers).percentiles([share]) == [expected]
