"""Scripts of texts by their letters, and languages by the detector, for the codes of every family."""

import pytest

from dstrain.evaluation.language import (
    ALIKE,
    ISO_639_1,
    detector_signature,
    find_candidates,
    find_wrong_languages,
    find_wrong_scripts,
    iso_code,
    main_script,
)

SCRIPTS = {
    "A sentence, in English (2024).": "LATIN",
    "한국어 문장입니다. API": "HANGUL",
    "これは日本語です": "CJK",
    "カタカナ": "CJK",
    "这是中文": "CJK",
    "Это по-русски": "CYRILLIC",
    "Ｆｕｌｌ ｗｉｄｔｈ": "LATIN",
    "هذه جملة": "ARABIC",
    "यह हिन्दी है": "DEVANAGARI",
    "ภาษาไทย": "THAI",
    "ქართული": "GEORGIAN",
}


@pytest.mark.parametrize(("text", "script"), SCRIPTS.items())
def test_the_script_is_that_of_most_letters(text: str, script: str) -> None:
    assert main_script(text) == script


@pytest.mark.parametrize("text", ["", "2024-01-02", "... !?", "42 %", "\ud800"])
def test_a_text_without_letters_has_none(text: str) -> None:
    assert main_script(text) is None


def test_the_references_of_a_language_say_which_script_is_right() -> None:
    languages = ["ko", "ko", "ko", "en", "en", "en"]
    references = ["한국어", "문장", "OK", "English", "words", "한국"]
    hypotheses = ["English", "문장", "단어", "words", "123", "한국"]
    assert find_wrong_scripts(hypotheses, references, languages=languages) == (
        [True, False, False, False, False, True],
        [False, False, True, False, False, True],
    )


def test_references_without_letters_make_no_script_wrong() -> None:
    assert find_wrong_scripts(["a", "б"], ["1", "2"], languages=[None, None]) == ([False] * 2, [False] * 2)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("ko", "ko"),
        ("ko_KR", "ko"),
        ("kor_Hang", "ko"),
        ("en-GB", "en"),
        ("zho_Hans", "zh"),
        ("yue_Hant", "zh"),
        ("iw", "he"),
        ("myv_Cyrl", "myv"),
        (None, ""),
    ],
)
def test_codes_of_every_family_become_those_of_the_detector(code: str | None, expected: str) -> None:
    assert iso_code(code) == expected


def test_the_table_of_codes_has_each_once_and_languages_that_are_alike_are_in_two_letters() -> None:
    assert all(len(code) == 2 for code in ISO_639_1.values())
    assert all(len(code) == 2 for alike in ALIKE for code in alike)


def test_without_the_detector_there_are_no_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dstrain.evaluation.language.find_spec", lambda name: None)
    assert find_candidates(["en"], others=["ko"]) == []


def test_candidates_are_the_languages_of_the_recipe_if_the_detector_knows_them_and_two_of_them() -> None:
    pytest.importorskip("py3langid")
    assert find_candidates(["eng_Latn", "eng_Latn"], others=["kor_Hang"]) == ["en", "ko"]
    assert find_candidates(["de_DE", "fr_XX"], others=[]) == ["de", "fr"]
    assert find_candidates(["en"], others=["en"]) == []
    assert find_candidates(["en", None], others=["ko"]) == []
    assert find_candidates(["myv_Cyrl"], others=["en"]) == []
    assert find_candidates(["en"], others=["myv_Cyrl"]) == []


def test_every_language_of_the_table_of_codes_that_are_alike_is_known() -> None:
    pytest.importorskip("py3langid")
    codes = sorted({code for alike in ALIKE for code in alike})
    assert find_candidates(codes, others=[]) == codes


def test_texts_in_another_language_of_the_recipe_are_found_and_those_that_are_alike_are_not() -> None:
    pytest.importorskip("py3langid")
    english = "The weather has been very good for the whole week, and nobody expected it."
    german = "Das Wetter war die ganze Woche lang sehr gut, und niemand hatte es erwartet."
    norwegian = "Været har vært veldig bra hele uken, og ingen hadde ventet det."
    languages = ["de", "de", "no_XX", "de"]
    found = find_wrong_languages(
        [english, german, norwegian, "2024"],
        [german, german, norwegian, german],
        languages=languages,
        among=["da", "de", "en", "no"],
    )
    assert found == ([True, False, False, False], [False] * 4)
    assert detector_signature(["de", "en"]).endswith("|among:de,en")
