"""From scratch: the same tokenizer for the same texts, the same weights for the same seed, refusals with the way out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dstrain.config.recipe import Scratch
from dstrain.models.scratch import build_scratch_model, train_tokenizer
from dstrain.models.tokenizer import load_tokenizer
from tests.unit.models.tiny_models import LANGUAGES, TASK_TOKENS, TEXTS, tiny_scratch

FolderOf = Callable[[str], Path]


def test_a_scratch_model_has_the_same_weights_for_the_same_seed(tiny: Any) -> None:
    scratch = tiny_scratch(tiny.family)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    first, again, other = (build_scratch_model(scratch, tokenizer=tiny.tokenizer, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [model.get_input_embeddings().weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert weights[0].dtype == torch.float32
    assert weights[0].shape[0] == tiny.tokenizer.vocabulary_size


def test_a_scratch_model_begins_near_the_loss_of_a_uniform_guess(tiny: Any, batch_of: Callable[..., Any]) -> None:
    batch = batch_of(tiny, num_rows=5)
    if hasattr(tiny.model, "final_logits_bias"):
        tiny.model.final_logits_bias.zero_()
    loss = tiny.model(input_ids=batch.source_ids, attention_mask=batch.source_mask, labels=batch.labels).loss
    uniform = torch.log(torch.tensor(float(tiny.tokenizer.vocabulary_size)))
    assert loss.item() < 1.3 * uniform.item()


def test_training_twice_makes_the_same_tokenizer(tmp_path: Path) -> None:
    scratch = Scratch(architecture="m2m100", vocabulary_size=500)
    for name in ("first", "second"):
        train_tokenizer(scratch, texts=TEXTS, languages=("ko", "en"), task_tokens=TASK_TOKENS, folder=tmp_path / name)
    assert load_tokenizer(str(tmp_path / "first")).fingerprint == load_tokenizer(str(tmp_path / "second")).fingerprint


def test_families_with_byte_fallback_know_every_character(tokenizer_folder: FolderOf) -> None:
    for family in ("m2m100", "marian"):
        tokenizer = load_tokenizer(str(tokenizer_folder(family)))
        source, target = LANGUAGES.get(family, (None, None))
        text = "yes 漢字 🙂"
        _, (ids,) = tokenizer.encode([text], [text], source_language=source, target_language=target)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_a_vocabulary_smaller_than_the_characters_is_refused(tmp_path: Path) -> None:
    scratch = Scratch(architecture="t5", vocabulary_size=10)
    with pytest.raises(ValueError, match=r"model\.scratch\.vocabulary_size 10 is smaller than"):
        train_tokenizer(scratch, texts=TEXTS, languages=(), task_tokens=(), folder=tmp_path)


def test_texts_without_content_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot train a tokenizer"):
        train_tokenizer(
            Scratch(architecture="t5"), texts=["", "  "], languages=(), task_tokens=(), folder=tmp_path / "t5"
        )


def test_an_unknown_language_is_refused_before_a_scratch_tokenizer_is_used(tmp_path: Path) -> None:
    scratch = Scratch(architecture="m2m100", vocabulary_size=500)
    with pytest.raises(ValueError, match="language `kor_Hang`"):
        train_tokenizer(scratch, texts=TEXTS, languages=("kor_Hang", "en"), task_tokens=(), folder=tmp_path)


def test_every_language_family_but_plbart_is_offered_from_scratch() -> None:
    assert {family for family in LANGUAGES if family not in ("mbart50", "plbart")} == {"m2m100", "nllb", "mbart"}
