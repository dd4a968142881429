"""Kinds of characters: every script by its letters, and no verdict on what is short or mixed."""

import unicodedata

import pytest

from dstrain.data import characters
from dstrain.data.characters import CONTROL, DIGIT, SCRIPTS, count_kinds, count_letters, main_scripts

SENTENCES = {
    "Latin": "Où est l'école des Ärzte?",
    "Greek": "Πού είναι το σχολείο;",
    "Cyrillic": "Где находится школа?",
    "Arabic": "أين تقع المدرسة؟",
    "Hebrew": "איפה בית הספר?",
    "Devanagari": "विद्यालय कहाँ है",
    "Thai": "โรงเรียนอยู่ที่ไหน",
    "Hangul": "학교가 어디에 있습니까?",
    "Han or Kana": "学校はどこにありますか。",
}


@pytest.mark.parametrize("script", SENTENCES)
def test_a_sentence_is_of_its_script(script: str) -> None:
    (number,) = main_scripts(count_kinds([SENTENCES[script]]))
    assert SCRIPTS[number] == script


@pytest.mark.parametrize("text", ["", "Facebook"[:7], "12:30 – 14:00", "print() 함수를 호출합니다", "🙂" * 20])
def test_what_is_short_mixed_or_without_letters_is_of_no_script(text: str) -> None:
    assert main_scripts(count_kinds([text])).tolist() == [0]


def test_every_text_of_a_batch_has_its_own_counts() -> None:
    kinds = count_kinds(["ab1", "", "한글 2५"])
    assert count_letters(kinds).tolist() == [2, 0, 2]
    assert kinds[:, DIGIT].tolist() == [1, 0, 2]


def test_long_texts_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [*SENTENCES.values(), "", "a" * 500]
    whole = count_kinds(texts)
    monkeypatch.setattr(characters, "MOST_CHARACTERS", 20)
    assert count_kinds(texts).tolist() == whole.tolist()


def test_letters_that_unicode_names_after_a_script_are_of_it() -> None:
    """Against the names in Unicode's own data: blocks hold signs too, but no letter of another of these scripts."""
    names = {
        "LATIN": "Latin",
        "GREEK": "Greek",
        "CYRILLIC": "Cyrillic",
        "HANGUL": "Hangul",
        "THAI": "Thai",
        "ARABIC": "Arabic",
    }
    letters = [chr(code) for code in range(0x3000) if chr(code).isalpha()]
    kinds = count_kinds(letters)
    for letter, row in zip(letters, kinds, strict=True):
        script = names.get(unicodedata.name(letter, "").partition(" ")[0])
        found = [SCRIPTS[place - CONTROL] for place in row.nonzero()[0] if place > CONTROL]
        assert not found or script is None or found == [script], letter


@pytest.mark.parametrize("text", ["a\x00b", "a\ufffdb", "\ufeffa", "a\ue000", "a\x1fb"])
def test_characters_that_no_text_should_have_are_counted(text: str) -> None:
    assert count_kinds([text, "a\tb\n"])[:, CONTROL].tolist() == [1, 0]
