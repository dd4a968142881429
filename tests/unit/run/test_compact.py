"""When a run trains part of the rows of its input embedding, and which."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from dstrain.errors import UserError
from dstrain.models.compact import CompactEmbedding
from dstrain.run.compact import compact_if_exact
from tests.distributed.steps import EOS, PAD, VOCABULARY, build_model
from tests.unit.run.run_cases import CPU, build_config

TOKENIZER: Any = SimpleNamespace(pad_token_id=PAD, tokenizer=SimpleNamespace(all_special_ids=[PAD, EOS]))


def untied() -> PreTrainedModel:
    model = build_model("mt5", dropout=0.0, num_layers=1)
    model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
    return model


def choose(
    model: PreTrainedModel, *, read: tuple[int, ...] = (9, 20), saved: dict[str, Any] | None = None, **changes: Any
) -> tuple[int, ...] | None:
    """The rows that are trained of a model whose training rows have these ids; `saved` are those of a checkpoint."""
    train: Any = SimpleNamespace(occurring=lambda side: np.asarray(read if side == "source" else [30], dtype=np.int32))
    resume: Any = None if saved is None else SimpleNamespace(directory=Path("none"), state=SimpleNamespace(rows=saved))
    config = build_config(**changes)
    compact_if_exact(model, config=config, tokenizer=TOKENIZER, train=train, resume=resume, ranks=CPU)
    embedding = model.get_input_embeddings()
    return embedding.ids if isinstance(embedding, CompactEmbedding) else None


def test_rows_that_training_reads_are_trained_where_nothing_else_changes() -> None:
    assert choose(untied()) == (PAD, EOS, 9, 20, 30)
    assert choose(untied(), machine__compact_embedding=False) is None
    assert choose(build_model("mt5", dropout=0.0)) is None
    assert choose(untied(), training__weight_decay=0.1) is None
    assert choose(untied(), model__vocabulary="seen") is None


def test_null_keeps_an_embedding_of_which_most_is_read() -> None:
    half = tuple(range(VOCABULARY // 2 + 1))
    assert choose(untied(), read=half) is None
    assert choose(untied(), read=half, machine__compact_embedding=True) is not None


def test_a_resumed_run_goes_on_as_it_began_and_keeps_the_rows_that_it_has_trained() -> None:
    assert choose(untied(), saved={}) is None
    assert choose(untied(), saved={"shared.weight": (9, 80)}) == (PAD, EOS, 9, 20, 30, 80)
    assert choose(untied(), saved={"shared.weight": (9, 80)}, machine__compact_embedding=False) is None
    most = tuple(range(VOCABULARY - 1))
    assert choose(untied(), saved={"shared.weight": most}) == most


def test_what_would_change_the_run_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match=r"machine\.compact_embedding: the head of this model shares its weights"):
        choose(build_model("mt5", dropout=0.0), machine__compact_embedding=True)
