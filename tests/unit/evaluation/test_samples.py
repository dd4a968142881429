"""Sample hypotheses: which rows, and how they are shown."""

import pytest

from dstrain.evaluation.samples import MAX_SHOWN, choose_samples, describe_samples
from dstrain.run_folder.scores import ScoredTexts


@pytest.mark.parametrize(
    ("num_rows", "number", "rows"),
    [
        (690, 3, [115, 345, 575]),
        (3, 3, [0, 1, 2]),
        (2, 3, [0, 1]),
        (1, 3, [0]),
        (0, 3, []),
        (690, 0, []),
        (100, 1, [50]),
    ],
)
def test_rows_are_spread_over_all_and_the_same_each_time(num_rows: int, number: int, rows: list[int]) -> None:
    assert choose_samples(num_rows, number=number) == choose_samples(num_rows, number=number) == rows


@pytest.mark.parametrize("num_rows", range(1, 30))
@pytest.mark.parametrize("number", range(1, 12))
def test_no_row_is_shown_twice(num_rows: int, number: int) -> None:
    rows = choose_samples(num_rows, number=number)
    assert len(set(rows)) == len(rows) == min(number, num_rows)
    assert set(rows) <= set(range(num_rows))


def test_a_hypothesis_stands_above_its_first_reference() -> None:
    texts = ScoredTexts(
        hypotheses=["one", "two pencils"],
        references=[["1", "2 pencils"], ["eins", "zwei"]],
        sources=["하나", "연필 두 자루"],
        index=["dev.tsv:1", "dev.tsv:2"],
    )
    assert describe_samples(texts, number=1) == [
        "  dev.tsv:2: 연필 두 자루",
        "    hypothesis  two pencils",
        "    reference   2 pencils",
    ]


def test_long_texts_are_cut_and_empty_ones_are_named() -> None:
    texts = ScoredTexts(["x" * 500], [["a\tb\n c"]], [" "], ["f:1"])
    source, hypothesis, reference = describe_samples(texts, number=3)
    assert source == "  f:1: (empty)"
    assert hypothesis == f"    hypothesis  {'x' * (MAX_SHOWN - 1)}…"
    assert reference == "    reference   a b c"
