"""Words of any script, and how often the rarest of a text occurs."""

import pytest

from dstrain.html_report import rarity
from dstrain.html_report.rarity import count_words, rarest, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat, the CAT!", ["the", "cat", "the", "cat"]),
        ("[IN:CREATE_CALL [SL:CONTACT Nicholas ] ]", ["in:create_call", "sl:contact", "nicholas"]),
        ("図書館へ", ["図", "書", "館", "へ"]),
        ("it's 5pm — ok", ["it's", "5pm", "ok"]),
        ("… ! ]", []),
        ("", []),
    ],
)
def test_words_stand_between_spaces_or_are_characters(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_words_are_counted_whatever_their_case_and_punctuation(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["The cat.", "the dog, the cow", "a Cat"] * 3
    expected = {"the": 9, "cat": 6, "owl": 0}
    assert count_words(texts, words=expected.keys()) == expected
    monkeypatch.setattr(rarity, "MAX_DISTINCT", 2)  # the pieces are taken apart again and again
    assert count_words(texts, words=expected.keys()) == expected


def test_the_rarest_word_decides_and_an_uncounted_one_leaves_it_unknown() -> None:
    counts = {"the": 9, "cat": 2, "owl": 0}
    assert rarest("The cat", counts=counts) == 2
    assert rarest("the cat the owl", counts=counts) == 0
    assert rarest("the zebra", counts=counts) is None
    assert rarest("!", counts=counts) is None
