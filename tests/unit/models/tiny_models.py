"""Tiny models of every family and rows for them; the tests of this folder import it by name."""

from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from dstrain.config.recipe import Scratch
from dstrain.models.tokenizer import Seq2SeqTokenizer

FAMILIES = ("m2m100", "nllb", "mbart", "mbart50", "marian", "t5", "mt5")
"""Those with a tokenizer of dstrain's making; the others are in stock_families.py."""
LANGUAGES = {
    "m2m100": ("ko", "en"),
    "nllb": ("kor_Hang", "eng_Latn"),
    "mbart": ("ko_KR", "en_XX"),
    "mbart50": ("ko_KR", "en_XX"),
    "plbart": ("java", "en_XX"),
}
TASK_TOKENS = ["[IN:CREATE_ALARM", "[SL:DATE_TIME", *(f"<pt-{i}>" for i in range(12))]
PAIRS = [
    ("커피 두 잔", "two cups of coffee"),
    ("오후 세 시 반", "half past three in the afternoon"),
    ("삼백이십일", "three hundred twenty-one"),
    ("네", "yes"),
    ("set an alarm for 7 am", "[IN:CREATE_ALARM [SL:DATE_TIME <pt-3> <pt-4> <pt-5> ] ]"),
]
TEXTS = [text for pair in PAIRS for text in pair] * 20


class Tiny(NamedTuple):
    family: str
    tokenizer: Seq2SeqTokenizer
    model: PreTrainedModel
    languages: tuple[str | None, str | None]


class Batch(NamedTuple):
    source_ids: torch.Tensor
    source_mask: torch.Tensor
    labels: torch.Tensor


def tiny_scratch(family: str) -> Scratch:
    """Sizes small enough to differentiate in milliseconds; mBART-50 is mBART's architecture."""
    architecture = "mbart" if family == "mbart50" else family
    return Scratch.model_validate(
        {"architecture": architecture, "hidden_size": 16, "feed_forward_size": 32, "num_layers": 2, "num_heads": 2}
    )


def build_batch(tiny: Tiny, *, num_rows: int) -> Batch:
    """Real encoded rows of unequal length, padded at the end."""
    pairs = [PAIRS[i % len(PAIRS)] for i in range(num_rows)]
    source_language, target_language = tiny.languages
    sources, targets = tiny.tokenizer.encode(
        [source for source, _ in pairs],
        [target for _, target in pairs],
        source_language=source_language,
        target_language=target_language,
    )
    source_ids = _pad(sources, value=tiny.tokenizer.pad_token_id)
    mask = _pad([[1] * len(source) for source in sources], value=0)
    return Batch(source_ids, mask, _pad(targets, value=-100))


def _pad(rows: list[list[int]], *, value: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])
