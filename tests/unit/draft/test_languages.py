"""Languages by their script, their frequent words and the names of models; and their codes in each family."""

import pytest

from dstrain.draft.languages import M2M100, MBART, NLLB, WORDS, guess_language, language_pair, script_of, spell


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("파이썬 설명서는 reStructuredText 소스에서 만들어졌습니다", "ko"),
        ("これは本です。", "ja"),
        ("这是一本书", "zh"),
        ("هذا كتاب", "ar"),
        ("это книга", "ru"),
        ("นี่คือหนังสือ", "th"),
        ("This is the book that you asked for", "en"),
        ("Das ist nicht das Buch, das ich mag", "de"),
        ("Ce n'est pas le livre que vous avez dans les mains", "fr"),
        ("El libro que no se lee es para los otros", "es"),
        ("zzz qqq", "en"),
        ("12 34 !?", None),
    ],
)
def test_the_language_of_a_text_is_guessed(text: str, code: str | None) -> None:
    found = guess_language([text])
    assert (found[0] if found else None) == code


def test_shared_scripts_are_named_as_such() -> None:
    found = guess_language(["это книга"])
    assert found is not None
    assert "other languages are written with too" in found[1]


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("ko-en-m2m", ("ko", "en")),
        ("Helsinki-NLP/opus-mt-de-en", ("de", "en")),
        ("nllb-en-to-fr", ("en", "fr")),
        ("mt5-small-finetuned-amazon-en-es", ("en", "es")),
        ("t5-small-pointer-mtop", None),
        ("de-en-fr", None),
        ("en-en", None),
        ("", None),
    ],
)
def test_a_name_speaks_of_one_pair_or_of_none(name: str, pair: tuple[str, str] | None) -> None:
    assert language_pair(name) == pair


def test_codes_are_those_of_the_families_own_classes() -> None:
    from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES as M2M100_CODES
    from transformers.models.mbart50.tokenization_mbart50 import FAIRSEQ_LANGUAGE_CODES as MBART50_CODES
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as NLLB_CODES

    assert {*M2M100_CODES["m2m100"]} == M2M100
    assert {*MBART50_CODES} == {*MBART.values()}
    assert {*NLLB.values()} <= {*NLLB_CODES}
    assert {*NLLB} <= M2M100


def test_a_code_is_spelt_as_the_family_writes_it() -> None:
    assert [spell("ko", family=family) for family in ("m2m100", "nllb", "mbart", "t5")] == [
        "ko",
        "kor_Hang",
        "ko_KR",
        "ko",
    ]
    assert [spell("eo", family=family) for family in ("m2m100", "nllb", "mbart")] == [None, None, None]


def test_every_language_with_words_is_one_of_m2m100() -> None:
    assert {*WORDS} <= M2M100


def test_digits_and_signs_have_no_script() -> None:
    assert [script_of(char) for char in "aé한7 -"] == ["LATIN", "LATIN", "HANGUL", None, None, None]
