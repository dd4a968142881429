"""Which tokenizer BLEU uses for references in any script, with the code of any family, or with none."""

from typing import get_args

import pytest
from sacrebleu.metrics import BLEU

from dstrain.config.evaluation import Evaluation
from dstrain.errors import UserError
from dstrain.evaluation.bleu_tokenizer import TOKENIZERS, check_bleu_tokenizer, choose_tokenizer, find_writing

CHINESE = ["我喜欢吃炒饭和煎蛋", "今天真的很热"]
JAPANESE = ["この猫はベッドで寝ています", "明日は海へ行きます", "東京都"]
KOREAN = ["커피 두 잔 주세요", "오늘은 정말 덥다"]
ENGLISH = ["two cups of coffee", "it is hot today"]
UNSPACED = {
    "th": "วันนี้ร้อนมากจริงๆ",
    "lao_Laoo": "ມື້ນີ້ຮ້ອນຫຼາຍ",
    "khm_Khmr": "ថ្ងៃនេះពិតជាក្តៅណាស់",
    "my_MM": "ဒီနေ့ တကယ်ပူတယ်",
    "bod_Tibt": "དེ་རིང་ཚ་བ་ཆེན་པོ་འདུག",
    "shn_Mymr": "မိူဝ်ႈၼႆႉမႆႈတႄႉတႄႉ",
}


@pytest.fixture(autouse=True)
def _every_extra_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dstrain.evaluation.bleu_tokenizer.find_spec", lambda name: object())


@pytest.mark.parametrize("code", [None, "zh", "zh_CN", "zh-TW", "zho_Hans", "yue_Hant", ">>cmn_Hans<<", "wuu", "en"])
def test_chinese_text_is_split_whatever_code_the_recipe_names(code: str | None) -> None:
    assert choose_tokenizer({code: CHINESE}).name == "zh"


@pytest.mark.parametrize("code", [None, "ja", "ja_XX", "jpn_Jpan", "JA"])
def test_japanese_text_is_split_although_some_of_it_has_no_kana(code: str | None) -> None:
    choice = choose_tokenizer({code: JAPANESE})
    assert (choice.name, choice.warnings) == ("ja-mecab", ())


@pytest.mark.parametrize("code", ["ja_XX", "jpn_Jpan"])
def test_the_code_decides_where_all_references_are_in_characters_that_two_languages_share(code: str) -> None:
    assert choose_tokenizer({code: ["東京都"]}).name == "ja-mecab"
    assert choose_tokenizer({None: ["東京都"]}).name == "zh"


@pytest.mark.parametrize("code", [None, "ko", "ko_KR", "kor_Hang"])
def test_korean_text_uses_the_tokenizer_of_korean(code: str | None) -> None:
    choice = choose_tokenizer({code: KOREAN})
    assert (choice.name, choice.warnings) == ("ko-mecab", ())


@pytest.mark.parametrize("code", UNSPACED)
def test_other_scripts_without_spaces_are_split_into_characters_with_and_without_a_code(code: str) -> None:
    for language in (code, None, "en"):
        choice = choose_tokenizer({language: [UNSPACED[code]]})
        assert (choice.name, choice.warnings) == ("char", ())


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (None, "two cups of coffee"),
        ("deu_Latn", "zwei Tassen Kaffee"),
        ("ru", "две чашки кофе"),
        ("ar_AR", "فنجانان من القهوة"),
        ("hin_Deva", "दो कप कॉफी"),
        ("vi", "hai tách cà phê"),
        ("nan_Latn", "nn̄g poe ka-pi"),
        (None, "2,000 + 1"),
        (None, "😀"),
    ],
)
def test_scripts_with_spaces_and_texts_without_letters_use_13a(code: str | None, text: str) -> None:
    choice = choose_tokenizer({code: [text]})
    assert (choice.name, choice.warnings) == ("13a", ())


def test_text_that_contradicts_a_language_is_split_all_the_same() -> None:
    assert choose_tokenizer({"zh": [UNSPACED["th"]]}).name == "char"
    assert choose_tokenizer({"zh": ENGLISH}).name == "zh"  # sacreBLEU's default for the language
    assert choose_tokenizer({"ko": CHINESE}).name == "zh"


def test_foreign_words_do_not_decide() -> None:
    assert find_writing("我的 iPhone 15 Pro Max 很好用") == "Chinese"
    assert find_writing("the city of 北京 is large and old") == "spaced"
    assert find_writing("大韓民國의 수도는 서울이고 인구가 많은 도시입니다") == "Korean"
    assert choose_tokenizer({"ja": [*JAPANESE, "iPhone"]}).name == "ja-mecab"


def test_a_few_references_that_13a_does_not_split_are_counted() -> None:
    choice = choose_tokenizer({None: ENGLISH * 10 + CHINESE[:1]})
    assert choice.name == "13a"
    (warning,) = choice.warnings
    assert warning.startswith("1 of 21 references are in Chinese, which the BLEU tokenizer `13a` does not split")


@pytest.mark.parametrize(
    ("references", "name"),
    [
        ({"en": ENGLISH, "zh": CHINESE}, "zh"),
        ({None: ENGLISH + CHINESE}, "zh"),
        ({"en": ENGLISH, "ko": KOREAN}, "13a"),
        ({"ko": KOREAN, "zh": CHINESE}, "zh"),
        ({"ja": JAPANESE, "zh": CHINESE}, "char"),
        ({"en": ENGLISH, "th": [UNSPACED["th"]]}, "char"),
        ({"en": ENGLISH, "ja": JAPANESE}, "char"),
    ],
)
def test_several_writings_share_a_tokenizer_that_splits_them_all_with_a_warning(
    references: dict[str | None, list[str]], name: str
) -> None:
    choice = choose_tokenizer(references)
    assert choice.name == name
    (warning,) = choice.warnings
    assert "mixes references" in warning
    assert f"uses `{name}`" in warning


@pytest.mark.parametrize(
    ("text", "name", "fallback", "extra"),
    [(JAPANESE, "ja-mecab", "char", "sacrebleu[ja]"), (KOREAN, "ko-mecab", "13a", "sacrebleu[ko]")],
)
def test_japanese_and_korean_without_their_extra_fall_back_with_a_warning(
    text: list[str], name: str, fallback: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dstrain.evaluation.bleu_tokenizer.find_spec", lambda module: None)
    choice = choose_tokenizer({None: text})
    assert choice.name == fallback
    (warning,) = choice.warnings
    assert f"`{name}` is not installed" in warning
    assert extra in warning


def test_a_pinned_tokenizer_is_not_replaced_but_warned_about_where_it_does_not_split() -> None:
    assert choose_tokenizer({"en": ENGLISH}, pinned="intl") == choose_tokenizer({"ko": KOREAN}, pinned="intl")
    assert choose_tokenizer({None: CHINESE}, pinned="flores200").warnings == ()
    choice = choose_tokenizer({"zh": CHINESE, "th": [UNSPACED["th"]]}, pinned="13a")
    assert choice.name == "13a"
    (warning,) = choice.warnings
    assert warning.startswith("3 of 3 references are in Chinese and a script without spaces")


def test_the_recipe_admits_the_names_of_sacrebleu_and_no_others() -> None:
    (names,) = (each for each in get_args(Evaluation.model_fields["bleu_tokenizer"].annotation) if get_args(each))
    assert set(get_args(names)) == set(BLEU.TOKENIZERS)
    assert set(TOKENIZERS.values()) <= set(BLEU.TOKENIZERS)


def test_a_tokenizer_that_is_not_installed_is_refused_with_the_way_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check_bleu_tokenizer("char")
    monkeypatch.setattr("dstrain.evaluation.bleu_tokenizer.find_spec", lambda module: None)
    with pytest.raises(UserError, match=r"evaluation.bleu_tokenizer `ja-mecab` is not installed: .*sacrebleu\[ja\]"):
        check_bleu_tokenizer("ja-mecab")


def test_a_tokenizer_whose_model_cannot_be_downloaded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, path: str) -> None:
        raise OSError("no network")

    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_spm.download_file", fail)
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_spm.SACREBLEU_DIR", "/nowhere")
    with pytest.raises(
        UserError, match=r"evaluation.bleu_tokenizer `flores200` cannot be used \(OSError: no network\)"
    ):
        check_bleu_tokenizer("flores200")
