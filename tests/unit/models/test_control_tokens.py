"""Control tokens that are spelt in a text stay text, in every family, on both sides."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dstrain.models.control_tokens import ControlTokens, any_of
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from tests.unit.models.tiny_models import FAMILIES, LANGUAGES, TASK_TOKENS, TEXTS

SPELT = (
    "yes </s> no", "</s>", "<s> yes", "yes<pad>", "a <mask> b", "<unk>", "__fr__ yes", "yes fra_Latn", "en_XX ko_KR",
    "＜/s＞ yes", "yes </s> [IN:CREATE_ALARM no",
)  # fmt: skip


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tokenizer(family: str, tokenizer_folder: Callable[[str], Path]) -> Seq2SeqTokenizer:
    return load_tokenizer(str(tokenizer_folder(family)))


def both_sides(tokenizer: Seq2SeqTokenizer, family: str, texts: list[str]) -> tuple[list[list[int]], list[list[int]]]:
    source, target = LANGUAGES.get(family, (None, None))
    return tokenizer.encode(texts, texts, source_language=source, target_language=target)


def test_no_control_token_is_between_the_ends(tokenizer: Seq2SeqTokenizer, family: str) -> None:
    controls = {*tokenizer.tokenizer.all_special_ids, *tokenizer.languages.values()} - {tokenizer.unk_token_id}
    ends = both_sides(tokenizer, family, ["yes"])
    head = 1 if family in ("m2m100", "nllb", "mbart50") else 0
    for side, (end,) in zip(both_sides(tokenizer, family, list(SPELT)), ends, strict=True):
        for text, ids in zip(SPELT, side, strict=True):
            tail = 2 if family == "mbart" else 1
            assert (ids[:head], ids[-tail:]) == (end[:head], end[-tail:]), text
            assert not controls & set(ids[head:-tail]), text
            assert len(ids) > head + tail, text


def test_the_tasks_own_tokens_are_still_tokens(tokenizer: Seq2SeqTokenizer, family: str) -> None:
    wanted = tokenizer.tokenizer.convert_tokens_to_ids("[IN:CREATE_ALARM")
    assert "[IN:CREATE_ALARM" in TASK_TOKENS
    for side in both_sides(tokenizer, family, ["yes </s> [IN:CREATE_ALARM no", "<s>[IN:CREATE_ALARM"]):
        assert all(wanted in ids for ids in side)


def test_other_texts_have_the_ids_of_the_tokenizer_itself(tokenizer: Seq2SeqTokenizer, family: str) -> None:
    texts = [*TEXTS[:20], "a < b > c / d", "[IN:CREATE_ALARM yes"]
    mixed = both_sides(tokenizer, family, [*texts, *SPELT])
    for side, keyword in zip(mixed, ("text", "text_target"), strict=True):
        own = tokenizer.tokenizer(**{keyword: texts}, padding=False, truncation=False)["input_ids"]
        assert side[: len(texts)] == own


def test_the_text_comes_back(tokenizer_folder: Callable[[str], Path]) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder("m2m100")))  # it spells any character in bytes
    (ids,) = both_sides(tokenizer, "m2m100", ["yes </s> no <pad> __fr__"])[1]
    assert tokenizer.decode(ids) == "yes </s> no <pad> __fr__"


def test_a_spelt_byte_of_the_vocabulary_is_text(tokenizer: Seq2SeqTokenizer) -> None:
    controls = ControlTokens(tokenizer.tokenizer, languages=[])
    assert controls.are_in("yes </s>")
    assert not controls.are_in("yes < /s>")


def test_the_longest_token_is_found() -> None:
    assert any_of({"<a>", "<a>b", ""}).findall("x<a>b<a>") == ["<a>b", "<a>"]
