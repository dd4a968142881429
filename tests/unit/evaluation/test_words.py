"""Words of texts in several scripts."""

import pytest

from dstrain.evaluation.words import answer_words, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat-nap, 2x!", ["the", "cat", "nap", "2x"]),
        ("snake_case", ["snake", "case"]),
        ("Ünïcode naïve", ["ünïcode", "naïve"]),
        ("나는 밥을 먹었다.", ["나는", "밥을", "먹었다"]),
        ("我爱NLP很多", ["我", "爱", "nlp", "很", "多"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # vowel signs belong to their word
        ("น้ำใจ", ["น้", "ำ", "ใ", "จ"]),  # a tone mark belongs to its letter
        ("…", []),
    ],
)
def test_words_are_runs_of_letters_or_single_characters_where_there_are_no_spaces(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_answers_lose_case_punctuation_and_articles_but_no_part_of_a_word() -> None:
    assert answer_words("The theatre, an “Anthem”: $5") == ["theatre", "anthem", "5"]
    assert answer_words("“북경” 北京!") == ["북경", "北", "京"]
