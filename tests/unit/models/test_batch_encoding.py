"""M2M100's ids from sentencepiece's batch call: exactly those of its tokenizer class, for any text."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dstrain.models.batch_encoding import build_batch_encoder
from dstrain.models.control_tokens import ControlTokens
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.tasks.demo.rows import demo_rows
from tests.unit.models.tiny_models import FAMILIES, TASK_TOKENS, TEXTS

HOSTILE = [
    "", " ", "  two  spaces ", "\ttab\nline", "</s>", "a</s>b", "__en__", "x __ko__ y", "__en_", "<unk>", "<pad>", "<s>",
    "＿＿ｋｏ＿＿", "＜／ｓ＞", "▁", "▁▁a", "é é", "\u200b\ufeff", "😀", "안녕 __en__", "\x00", "a" * 5000,
    TASK_TOKENS[0], f"a {TASK_TOKENS[0]}b", TASK_TOKENS[0] + TASK_TOKENS[-1], TASK_TOKENS[0][:-1],
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Callable[[str], Path]) -> Seq2SeqTokenizer:
    return load_tokenizer(str(tokenizer_folder("m2m100")))


def both_ways(tokenizer: Seq2SeqTokenizer, sources: list[str], targets: list[str]) -> tuple[object, object]:
    """Our ids, and those of the family's tokenizer class, of texts that spell no control token."""
    controls = ControlTokens(tokenizer.tokenizer, languages=list(tokenizer.languages))
    sources, targets = ([text for text in side if not controls.are_in(text)] for side in (sources, targets))
    ours = tokenizer.encode(sources, targets, source_language="ko", target_language="en")
    own = tokenizer.tokenizer
    own.src_lang, own.tgt_lang = "ko", "en"
    sides = (own(sources)["input_ids"] if sources else [], own(text_target=targets)["input_ids"] if targets else [])
    return ours, sides


def test_ids_are_those_of_the_class_for_ordinary_text(tokenizer: Seq2SeqTokenizer) -> None:
    rows = demo_rows("translation", split="train")[:500]
    ours, theirs = both_ways(tokenizer, [row.source for row in rows], [row.target for row in rows])
    assert ours == theirs


def test_ids_are_those_of_the_class_for_hostile_text(tokenizer: Seq2SeqTokenizer) -> None:
    ours, theirs = both_ways(tokenizer, [*HOSTILE, *TEXTS], [*TEXTS, *HOSTILE])
    assert ours == theirs


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(max_size=30) | st.lists(st.sampled_from([*HOSTILE, *TEXTS]), max_size=4).map("".join)))
def test_ids_are_those_of_the_class_for_any_text(texts: list[str], tokenizer: Seq2SeqTokenizer) -> None:
    ours, theirs = both_ways(tokenizer, texts, texts[::-1])
    assert ours == theirs


def test_ordinary_text_is_not_passed_to_the_class_at_all(
    tokenizer: Seq2SeqTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tokenizer.tokenizer), "_tokenize", lambda self, text: pytest.fail(f"asked for {text!r}"))
    tokenizer.encode(["안녕"], ["hello"], source_language="ko", target_language="en")


@pytest.mark.parametrize("family", sorted({*FAMILIES} - {"m2m100"}))
def test_other_families_use_their_class(family: str, tokenizer_folder: Callable[[str], Path]) -> None:
    assert build_batch_encoder(load_tokenizer(str(tokenizer_folder(family))).tokenizer) is None


def test_a_tokenizer_that_samples_uses_its_class(tokenizer_folder: Callable[[str], Path]) -> None:
    own = load_tokenizer(str(tokenizer_folder("m2m100"))).tokenizer
    own.sp_model_kwargs = {"enable_sampling": True}
    assert build_batch_encoder(own) is None
