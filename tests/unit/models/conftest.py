"""Tiny models of every family with tokenizers of its class, made without any download."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dstrain.models.scratch import build_scratch_model, write_tokenizer
from dstrain.models.tokenizer import load_tokenizer
from tests.unit.models.stock_families import STOCK_FAMILIES, build_stock_model, build_stock_tokenizer
from tests.unit.models.tiny_models import (
    FAMILIES,
    LANGUAGES,
    TASK_TOKENS,
    TEXTS,
    Batch,
    Tiny,
    build_batch,
    tiny_scratch,
)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with the family's tokenizer, trained once per session."""
    root = tmp_path_factory.mktemp("tokenizers")

    def folder_of(family: str) -> Path:
        folder = root / family
        if not folder.exists() and family in STOCK_FAMILIES:
            folder.mkdir()
            tokenizer = build_stock_tokenizer(family, texts=TEXTS, folder=folder)
            tokenizer.add_tokens(TASK_TOKENS)
            tokenizer.save_pretrained(folder)
        elif not folder.exists():
            write_tokenizer(
                family,
                vocabulary_size=500,
                texts=TEXTS,
                languages=LANGUAGES.get(family, ()),
                task_tokens=TASK_TOKENS,
                folder=folder,
            )
        return folder

    return folder_of


@pytest.fixture(params=FAMILIES)
def tiny(request: pytest.FixtureRequest, tokenizer_folder: Callable[[str], Path]) -> Tiny:
    """A tiny random model without dropout, in training mode, for every family in turn."""
    family = request.param
    tokenizer = load_tokenizer(str(tokenizer_folder(family)))
    model = build_scratch_model(tiny_scratch(family), tokenizer=tokenizer, seed=0, dropout=0.0)
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_()  # published models have one; zeros would hide a loss that forgets it
    if family == "mbart50":
        model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = 2
    return Tiny(family, tokenizer, model.train(), LANGUAGES.get(family, (None, None)))


@pytest.fixture(params=STOCK_FAMILIES)
def stock_tiny(request: pytest.FixtureRequest, tokenizer_folder: Callable[[str], Path]) -> Tiny:
    """The same for the families without a scratch architecture; the model has a few rows more than its tokenizer."""
    family = request.param
    tokenizer = load_tokenizer(str(tokenizer_folder(family)))
    model = build_stock_model(family, num_rows=tokenizer.vocabulary_size + 3)
    return Tiny(family, tokenizer, model.train(), LANGUAGES.get(family, (None, None)))


@pytest.fixture
def batch_of() -> Callable[..., Batch]:
    return build_batch
