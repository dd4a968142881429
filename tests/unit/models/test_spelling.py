"""Which pieces a vocabulary keeps so that other words can still be spelt."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dstrain.models.spelling import spelling_ids
from dstrain.models.tokenizer import load_tokenizer
from tests.unit.models.tiny_models import TASK_TOKENS

PIECES = [
    "<pad>",
    "</s>",
    "<unk>",
    "▁",
    "▁the",
    "the",
    "a",
    "é",
    "я",
    "커",
    "7",
    "٧",
    ",",
    "。",
    "€",
    "☂",
    "<0x41>",
    "▁a",
    "[IN:X",
]


def tokenizer_of(pieces: list[str]) -> Any:
    wrapped = SimpleNamespace(
        get_vocab=lambda: {piece: token_id for token_id, piece in enumerate(pieces)},
        all_special_ids=[0, 1, 2],
        added_tokens_decoder={0: "", 1: "", 2: "", pieces.index("[IN:X"): ""},
    )
    return SimpleNamespace(tokenizer=wrapped, languages={})


@pytest.mark.parametrize(
    ("occurring", "letters"),
    [(["▁the"], "aé"), (["▁the", "커"], "aé커"), (["я"], "aя"), ([], "a")],
    ids=["Latin", "Latin and Hangul", "Cyrillic", "nothing"],
)
def test_single_characters_of_the_scripts_that_occur_are_kept(occurring: list[str], letters: str) -> None:
    ids = spelling_ids(tokenizer_of(PIECES), occurring=[PIECES.index(piece) for piece in occurring])
    kept = {PIECES[token_id] for token_id in ids}
    # ASCII, punctuation, bytes, spaces and added tokens whatever occurs; words and symbols only where they do
    assert kept == {"<pad>", "</s>", "<unk>", "▁", "7", ",", "。", "<0x41>", "[IN:X", *letters}


def test_every_family_can_still_spell_what_its_rows_are_written_in(
    tiny: Any, tokenizer_folder: Callable[[str], Path]
) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder(tiny.family)))
    source_language, target_language = tiny.languages
    (occurring,), _ = tokenizer.encode(
        ["two cups"], [""], source_language=source_language, target_language=target_language
    )
    kept = set(spelling_ids(tokenizer, occurring=occurring))
    vocabulary = tokenizer.tokenizer.get_vocab()
    for piece, token_id in vocabulary.items():
        if re.fullmatch(r"[a-z]|<0x[0-9A-F]{2}>", piece) or piece in TASK_TOKENS:
            assert token_id in kept, piece
    assert {*tokenizer.tokenizer.all_special_ids, *tokenizer.languages.values()} <= kept
    words = [piece for piece in ("half", "coffee") if piece in vocabulary]
    assert not any(vocabulary[piece] in kept for piece in words)
