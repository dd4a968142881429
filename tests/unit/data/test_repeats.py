"""Repeated rows: found as by comparing every row with every earlier one, however many parts the rows are sorted in."""

import random
from collections.abc import Sequence

import pytest

from dstrain.data import repeats
from dstrain.data.identity import identify
from dstrain.data.repeats import find_repeats
from tests.unit.data.word_encoder import make_example

Pair = tuple[str, str]


def by_comparison(rows: Sequence[Pair]) -> tuple[list[int], int, int]:
    folded = [(source.lower(), target.lower()) for source, target in rows]
    equal = [number for number, row in enumerate(rows) if row in rows[:number]]
    normalised = sum(row in folded[:number] for number, row in enumerate(folded))
    targets = {source: {target for other, target in folded if other == source} for source, _ in folded}
    return equal, normalised, sum(len(each) > 1 for each in targets.values())


@pytest.mark.parametrize("part_rows", [7, 50, 10**6])
def test_repeats_are_those_of_a_comparison_of_all_rows(part_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "PART_ROWS", part_rows)
    draw = random.Random(2)
    rows = [(draw.choice("abAB") + draw.choice("abcdef"), draw.choice("xyX")) for _ in range(200)]
    identities = identify([make_example(*row) for row in rows])
    found = find_repeats(lambda: [identities[:90], identities[90:]], num_rows=len(rows))
    assert (found.equal.tolist(), found.num_normalised, found.num_many_targets) == by_comparison(rows)
    for later, earlier in found.first_equal:
        assert rows[later] == rows[earlier]
        assert earlier < later
    for later, earlier in found.first_normalised:
        assert [text.lower() for text in rows[later]] == [text.lower() for text in rows[earlier]]
        assert rows[later] != rows[earlier]
    for later, earlier in found.first_many_targets:
        (source, target), (other, another) = rows[later], rows[earlier]
        assert source.lower() == other.lower()
        assert target.lower() != another.lower()


def test_of_no_rows_none_is_repeated() -> None:
    found = find_repeats(list, num_rows=0)
    assert (found.equal.tolist(), found.num_normalised, found.num_many_targets) == ([], 0, 0)
