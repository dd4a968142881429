"""Swapped columns and sides in the wrong language, told from the tokens alone; no verdict where both sides are alike."""

import random

import numpy as np
import pytest

from dstrain.data.sides import MIN_TOKENS, Side, SideProfile, collect, judge
from dstrain.run_folder.audit import Found

PREFIX, END = 398, 399


def side(rows: list[list[int]]) -> Side:
    return np.array([token for row in rows for token in row]), np.array([len(row) for row in rows])


def draw_row(draw: random.Random, first: int, length: int = 12) -> list[int]:
    """Tokens of one language: 150 of its own, every fifth one of both."""
    return [draw.randrange(300, 350) if draw.random() < 0.2 else first + draw.randrange(150) for _ in range(length)]


def judged(pairs: list[tuple[list[int], list[int]]]) -> dict[str, list[int]]:
    source = side([[PREFIX, *one, END] for one, _ in pairs])
    target = side([[*other, END] for _, other in pairs])
    profile = SideProfile()
    profile.add(source, target)
    found = judge(source, target, weights=profile.weights())
    return {name: np.flatnonzero(mask).tolist() for name, mask in found.items()}


def rows(number: int, *, second: int = 150) -> list[tuple[list[int], list[int]]]:
    draw = random.Random(3)
    return [(draw_row(draw, 0), draw_row(draw, second)) for _ in range(number)]


def test_planted_rows_are_found_and_no_others() -> None:
    pairs = rows(2000)
    pairs[10] = (pairs[10][1], pairs[10][0])
    pairs[20] = (pairs[21][1], pairs[20][1])
    pairs[30] = (pairs[30][0], pairs[31][0])
    assert judged(pairs) == {"swapped": [10], "source_like_targets": [20], "target_like_sources": [30]}


def test_nothing_is_said_where_both_sides_are_of_one_language() -> None:
    assert judged(rows(2000, second=0)) == {"swapped": [], "source_like_targets": [], "target_like_sources": []}


def test_nothing_is_said_of_short_texts() -> None:
    pairs = rows(2000)
    pairs[10] = (pairs[10][1][: MIN_TOKENS - 1], pairs[10][0][: MIN_TOKENS - 1])
    assert judged(pairs)["swapped"] == []


@pytest.mark.parametrize("parts", [1, 3])
def test_findings_of_parts_are_collected_in_order(parts: int) -> None:
    mask = np.arange(12) % 2 == 0
    found: dict[str, Found] = {}
    for part in np.array_split(np.arange(12), parts):
        found = collect(found, {"swapped": mask[part]}, place="a.tsv", lines=part)
    assert found == {"swapped": Found(6, tuple(f"a.tsv:{line}" for line in (0, 2, 4, 6, 8, 10)))}


def test_ids_that_occur_later_are_counted_too() -> None:
    profile = SideProfile()
    for ids in ([5, 6], [5, 900]):
        profile.add(side([ids]), side([[7]]))
    weights = profile.weights()
    assert len(weights) == 901
    assert weights[900] > 0
    assert weights[7] == 0  # it stands in every row
