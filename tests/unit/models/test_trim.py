"""Tokenizers with fewer pieces: they segment alike what has only pieces that are left, and their numbers follow."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dstrain.errors import UserError
from dstrain.models.spelling import spelling_ids
from dstrain.models.tokenizer import Seq2SeqTokenizer, load_tokenizer
from dstrain.models.trim import check_alike, trim_tokenizer
from tests.unit.models.tiny_models import FAMILIES, LANGUAGES, PAIRS, TASK_TOKENS

CAN_BE_TRIMMED = [family for family in FAMILIES if family != "nllb"]
SOURCES, TARGETS = ([pair[side] for pair in PAIRS] for side in (0, 1))


def encode(tokenizer: Seq2SeqTokenizer, family: str, sources: list[str], targets: list[str]) -> list[list[int]]:
    source, target = LANGUAGES.get(family, (None, None))
    found = tokenizer.encode(sources, targets, source_language=source, target_language=target)
    return [*found[0], *found[1]]


def keep(tokenizer: Seq2SeqTokenizer, family: str, *, pairs: slice) -> list[int]:
    """The ids of some pairs, and those that spell."""
    occurring = {i for row in encode(tokenizer, family, SOURCES[pairs], TARGETS[pairs]) for i in row}
    return sorted({*occurring, *spelling_ids(tokenizer, occurring=occurring)})


@pytest.mark.parametrize("family", CAN_BE_TRIMMED)
def test_texts_with_kept_pieces_have_the_same_pieces(
    family: str, tokenizer_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder(family)), added_tokens=TASK_TOKENS)
    ids = keep(tokenizer, family, pairs=slice(2, 5))
    assert len(ids) < tokenizer.vocabulary_size
    trimmed = trim_tokenizer(tokenizer, ids=ids, folder=tmp_path)
    assert trimmed.vocabulary_size == len(ids)
    assert trimmed.languages == {code: ids.index(i) for code, i in tokenizer.languages.items()}
    assert trimmed.pad_token_id == ids.index(tokenizer.pad_token_id)
    before = encode(tokenizer, family, SOURCES[2:], TARGETS[2:])
    after = encode(trimmed, family, SOURCES[2:], TARGETS[2:])
    assert after == [[ids.index(i) for i in row] for row in before]
    assert [trimmed.decode(row) for row in after] == [tokenizer.decode(row) for row in before]
    languages = LANGUAGES.get(family, (None, None))
    options: Any = {"tokenizer": tokenizer, "trimmed": trimmed, "ids": ids, "languages": languages}
    assert 6 <= check_alike(SOURCES, TARGETS, **options) < 10
    assert load_tokenizer(str(tmp_path)).fingerprint == trimmed.fingerprint


@pytest.mark.parametrize("family", CAN_BE_TRIMMED)
def test_a_text_that_is_segmented_otherwise_is_named(
    family: str, tokenizer_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder(family)))
    ids = keep(tokenizer, family, pairs=slice(5))
    trimmed = trim_tokenizer(tokenizer, ids=ids, folder=tmp_path)
    with pytest.raises(UserError, match="segments 'yes' otherwise"):
        check_alike(
            ["yes"],
            ["yes"],
            tokenizer=tokenizer,
            trimmed=trimmed,
            ids=ids[::-1],
            languages=LANGUAGES.get(family, (None, None)),
        )


def test_byte_pair_merges_cannot_be_trimmed(tokenizer_folder: Callable[[str], Path], tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder("nllb")))
    with pytest.raises(UserError, match="of the kind BPE, whose pieces are built out of others: export without it"):
        trim_tokenizer(tokenizer, ids=keep(tokenizer, "nllb", pairs=slice(5)), folder=tmp_path)


def test_a_vocabulary_for_each_side_cannot_be_trimmed(tokenizer_folder: Callable[[str], Path], tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder("marian")))
    save = tokenizer.save
    tokenizer.save = lambda folder, **options: (save(folder), (folder / "target_vocab.json").write_text("{}"))[0]  # type: ignore[method-assign]
    with pytest.raises(UserError, match="a vocabulary for each side"):
        trim_tokenizer(tokenizer, ids=[0, 1], folder=tmp_path)


def test_sentencepiece_files_with_the_old_numbers_do_not_stay(
    tokenizer_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder("t5")))
    save = tokenizer.save
    tokenizer.save = lambda folder, **options: (save(folder), (folder / "spiece.model").write_text(""))[0]  # type: ignore[method-assign]
    trim_tokenizer(tokenizer, ids=keep(tokenizer, "t5", pairs=slice(5)), folder=tmp_path)
    assert not (tmp_path / "spiece.model").exists()
    assert json.loads((tmp_path / "tokenizer.json").read_text())["model"]["type"] == "Unigram"
