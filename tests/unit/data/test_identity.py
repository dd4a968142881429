"""Identities: what counts as the same row, in each of the ways."""

import unicodedata
from typing import Any

import numpy as np
import pytest

from dstrain.data.identity import SEPARATOR, WAYS, hash_sources, identify, keys_of, line_of, normalise
from tests.unit.data.word_encoder import make_example


def same(one: tuple[str, str], other: tuple[str, str]) -> set[str]:
    """The ways in which two rows are the same."""
    identities = identify([make_example(*one), make_example(*other)])
    found = {" ".join(way): keys_of(identities, level=way[0], view=way[1]) for way in WAYS}
    return {way for way, (first, second) in found.items() if first == second}


ALL = {"equal source", "equal target", "equal pair", "normalised source", "normalised target", "normalised pair"}


@pytest.mark.parametrize(
    ("other", "ways"),
    [
        (("Call Mom", "y"), ALL),
        (("call  mom ", "y"), ALL - {"equal source", "equal pair"}),
        (("Ｃall Mom", "y"), ALL - {"equal source", "equal pair"}),
        (("call\u00a0mom", "Y"), {"normalised source", "normalised target", "normalised pair"}),
        (("Call Mom", "z"), {"equal source", "normalised source"}),
        (("callmom", "y"), {"equal target", "normalised target"}),
        (("y", "Call Mom"), set()),
    ],
)
def test_rows_are_the_same_in_these_ways(other: tuple[str, str], ways: set[str]) -> None:
    assert same(("Call Mom", "y"), other) == ways


def test_a_batch_is_normalised_as_each_text_alone() -> None:
    texts = [
        "Straße  ΟΔΟΣ",
        "",
        " a\u2028b ",
        "e\u0301",
        "\u0301e",
        "soft\u00adhyphen",
        f"has {SEPARATOR} in it",
        "한글",
    ]
    assert normalise(texts) == [normalise([text])[0] for text in texts]
    assert normalise(texts[:6]) == [normalise([text])[0] for text in texts[:6]]
    assert normalise(texts)[3].decode() == unicodedata.normalize("NFC", "e\u0301")
    assert normalise([]) == []


def test_halves_of_surrogate_pairs_have_an_identity_too() -> None:
    assert "equal pair" in same(("a\ud800", "b"), ("a\ud800", "b"))
    assert "equal source" not in same(("a\ud800", "b"), ("a", "b"))


def test_the_hash_of_a_source_is_that_of_its_row() -> None:
    identities = identify([make_example("One  two", "x")])
    assert hash_sources(["one two"]).tolist() == identities["source"].tolist()


@pytest.mark.parametrize(
    ("where", "line"), [("a:b/c.tsv:12", 12), ("demo", 0), ("hub/train:0", 0), ("x:99999999999", 0)]
)
def test_the_line_stands_behind_the_last_colon(where: str, line: int) -> None:
    assert line_of(where) == line


def test_keys_of_different_rows_differ() -> None:
    identities = identify([make_example(f"s{row}", f"t{row % 7}") for row in range(2000)])
    expected: dict[Any, int] = {("equal", "target"): 7, ("normalised", "target"): 7}
    for level, view in WAYS:
        assert len(np.unique(keys_of(identities, level=level, view=view))) == expected.get((level, view), 2000)
