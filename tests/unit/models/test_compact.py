"""An embedding that trains the rows that are read: forward, gradient and steps as of the whole one, which comes back."""

import copy

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from dstrain.models.compact import (
    CompactEmbedding,
    compact_embedding,
    compact_embeddings,
    whole_embedding,
    why_not_compact,
)
from tests.distributed.steps import PAD, VOCABULARY, build_model

IDS = (PAD, 2, 5, 9, 40, 41, 95)


def untied() -> PreTrainedModel:
    model = build_model("mt5", dropout=0.0, num_layers=1)
    model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
    return model


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(0)
    ids = torch.tensor(IDS[1:])
    return [tuple(ids[torch.randint(len(ids), (3, 6), generator=random)] for _ in "ab") for _ in range(4)]  # type: ignore[misc]


def train(model: PreTrainedModel) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0, fused=True)
    for source, labels in batches():
        optimizer.zero_grad()
        model(input_ids=source, labels=labels).loss.backward()
        optimizer.step()


def test_steps_change_the_rows_that_are_read_as_if_all_were_trained() -> None:
    model = untied()
    compact = copy.deepcopy(model)
    compact_embedding(compact, ids=IDS)
    assert compact.get_input_embeddings().weight.shape == (len(IDS), 32)
    for each in (model, compact):
        train(each)
    with whole_embedding(compact):
        found, expected = compact.state_dict(), model.state_dict()
        assert found.keys() == expected.keys()
        assert [name for name in found if not torch.equal(found[name], expected[name])] == []
        compact(input_ids=torch.arange(VOCABULARY)[None], labels=torch.arange(VOCABULARY)[None])  # it reads every id
    assert compact_embeddings(compact).keys() == {"shared.weight"}


def test_it_is_whole_again_each_time_with_the_rows_as_they_are_then() -> None:
    model = untied()
    compact_embedding(model, ids=IDS)
    for value in (1.0, 2.0):
        with torch.no_grad():
            model.get_input_embeddings().weight.fill_(value)
        with whole_embedding(model):
            weight = model.get_input_embeddings().weight
            assert (weight[list(IDS)] == value).all()
            assert weight.shape == (VOCABULARY, 32)
            assert model.encoder.embed_tokens.weight is weight
            assert model.decoder.embed_tokens.weight is weight


def test_the_row_of_the_padding_has_no_gradient_where_it_had_none() -> None:
    whole = nn.Embedding(10, 3, padding_idx=4)
    compact = CompactEmbedding(whole, ids=(1, 4, 7))
    ids = torch.tensor([[1, 4, 7, 7]])
    assert torch.equal(compact(ids), whole(ids))
    for each in (whole, compact):
        each(ids).sum().backward()
    assert whole.weight.grad is not None
    assert compact.weight.grad is not None
    assert torch.equal(compact.weight.grad, whole.weight.grad[[1, 4, 7]])
    assert compact.expand().padding_idx == 4


def test_an_id_without_a_row_is_an_error_and_no_wrong_row() -> None:
    with pytest.raises(IndexError):
        CompactEmbedding(nn.Embedding(10, 3), ids=(1, 4, 7))(torch.tensor([2]))


def test_a_tied_or_scaled_embedding_is_trained_whole() -> None:
    assert "shares its weights" in (why_not_compact(build_model("mt5", dropout=0.0)) or "")
    assert why_not_compact(untied()) is None
    model = build_model("m2m100", dropout=0.0)
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    assert "do not share one plain embedding" in (why_not_compact(model) or "")  # it multiplies its rows
