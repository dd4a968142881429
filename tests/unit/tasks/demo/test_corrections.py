"""The slips of the text demo: each is what its name says, and the sentence that was meant can be told from it."""

from difflib import SequenceMatcher

import pytest

from dstrain.tasks.demo.corrections import SLIPS
from tests.unit.tasks.demo.demo_cases import rows_of

ROWS = [*rows_of("text", "train")[:4000], *rows_of("text", "eval")]


def pairs(slip: str) -> list[tuple[str, str]]:
    found = [(row.source, row.target) for row in ROWS if row.group == slip]
    assert found
    return found


def test_swapped_letters_are_the_same_letters() -> None:
    for written, meant in pairs("swapped"):
        places = [place for place, (one, other) in enumerate(zip(written, meant, strict=True)) if one != other]
        assert len(places) == 2
        assert places[1] == places[0] + 1
        assert sorted(written) == sorted(meant)


def test_a_missing_letter_is_one_inside_a_word() -> None:
    for written, meant in pairs("missing"):
        assert len(written) == len(meant) - 1
        assert len(written.split()) == len(meant.split())
        assert SequenceMatcher(None, written, meant).ratio() > 0.8


def test_a_doubled_word_stands_beside_itself() -> None:
    for written, meant in pairs("doubled"):
        words = written.split()
        assert len(words) == len(meant.split()) + 1
        assert any(
            " ".join(words[:place] + words[place + 1 :]) == meant and words[place] == words[place + 1].rstrip(".,")
            for place in range(len(words) - 1)
        )


def test_joined_words_lack_a_space() -> None:
    for written, meant in pairs("joined"):
        assert written.replace(" ", "") == meant.replace(" ", "")
        assert len(written) == len(meant) - 1


def test_an_unmarked_sentence_lacks_capital_and_full_stop() -> None:
    for written, meant in pairs("unmarked"):
        assert written == meant[0].lower() + meant[1:-1]
        assert meant.endswith(".")


def test_a_right_sentence_stays_as_it_is() -> None:
    assert all(written == meant for written, meant in pairs("right"))


@pytest.mark.parametrize("slip", [slip for slip in SLIPS if slip != "right"])
def test_a_slip_changes_the_sentence(slip: str) -> None:
    assert all(written != meant for written, meant in pairs(slip))
