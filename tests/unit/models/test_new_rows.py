"""The rows of new tokens, trained where embeddings and head are frozen: as a whole model with a masked gradient learns them."""

import copy

import torch
from transformers import PreTrainedModel

from dstrain.models.families import decoder_start_id, input_embeddings, is_head_tied, output_head
from dstrain.models.freezing import freeze
from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.new_rows import count_new_rows, frozen_new_rows, plain_of_new_rows, train_new_rows
from dstrain.models.partial import make_plain, plain_model
from tests.unit.models.tiny_models import Batch, Tiny, build_batch

NUM_NEW = 3


def new_ids(tiny: Tiny, batch: Batch) -> list[int]:
    """Ids that are read and written in the batch, so that each has a gradient from both sides where these are tied."""
    written = batch.labels[batch.labels >= 0].unique()
    ids = sorted({*written.tolist(), *batch.source_ids.unique().tolist()} - {tiny.tokenizer.pad_token_id})
    return ids[-NUM_NEW:]


def loss_of(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    start = decoder_start_id(model)
    labels = batch.labels.masked_fill(batch.labels < 0, 0)
    first = torch.full_like(labels[:, :1], 0 if start is None else start)
    loss: torch.Tensor = Seq2SeqLoss(model)(
        batch.source_ids, batch.source_mask, torch.cat([first, labels[:, :-1]], dim=1), batch.labels
    )
    return loss


def build_pair(tiny: Tiny, batch: Batch) -> tuple[PreTrainedModel, PreTrainedModel, list[int]]:
    """A model with frozen embeddings and new rows, and a whole one."""
    ids = new_ids(tiny, batch)
    whole, partial = tiny.model, copy.deepcopy(tiny.model)
    freeze(partial, ["embeddings"] if is_head_tied(partial) else ["embeddings", "lm_head*"])
    train_new_rows(partial, ids=ids)
    return whole, partial, ids


def test_loss_and_gradients_are_those_of_the_whole_model(tiny: Tiny) -> None:
    batch = build_batch(tiny, num_rows=5)
    whole, partial, ids = build_pair(tiny, batch)
    losses = [loss_of(model, batch) for model in (whole, partial)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    expected = [whole.get_input_embeddings().weight, output_head(whole).weight]
    found = [partial.get_input_embeddings(), output_head(partial)]
    assert (found[0].rows is found[1].rows) == is_head_tied(whole)
    for module, weight in zip(found, expected, strict=True):
        assert weight.grad is not None
        torch.testing.assert_close(module.rows.grad, weight.grad[ids], rtol=1e-5, atol=1e-6)
        assert module.whole.weight.grad is None
    assert count_new_rows(partial) == NUM_NEW
    others = {name: each.grad for name, each in whole.named_parameters() if each.grad is not None}
    for name, parameter in partial.named_parameters():
        if parameter.grad is not None and not name.endswith("rows"):
            torch.testing.assert_close(parameter.grad, others[name], rtol=1e-5, atol=1e-6)


def test_a_plain_model_has_the_trained_rows_in_their_places_and_is_tied_as_before(tiny: Tiny) -> None:
    batch = build_batch(tiny, num_rows=5)
    whole, partial, ids = build_pair(tiny, batch)
    with torch.no_grad():
        for module in (partial.get_input_embeddings(), output_head(partial)):
            module.rows.fill_(0.25)
    wanted = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    for module in (*input_embeddings(whole), output_head(whole)):
        names = [name for name, tensor in whole.state_dict().items() if tensor.data_ptr() == module.weight.data_ptr()]
        for name in names:
            wanted[name][ids] = 0.25
    modules = list(partial.modules())
    trained = {name: each.detach().clone() for name, each in partial.named_parameters()}
    with plain_model(partial):
        found = partial.state_dict()
        assert found.keys() == wanted.keys()
        assert [name for name in found if not torch.equal(found[name], wanted[name])] == []
        assert is_head_tied(partial) == is_head_tied(whole)
        assert [type(each) for each in partial.modules()] == [type(each) for each in whole.modules()]
        loss = loss_of(partial, batch)
    assert list(partial.modules()) == modules
    assert [name for name, each in partial.named_parameters() if not torch.equal(each, trained[name])] == []
    assert torch.equal(loss_of(partial, batch), loss)
    make_plain(partial)
    assert torch.equal(loss_of(partial, batch), loss)
    assert not plain_of_new_rows(partial)
    assert not frozen_new_rows(partial)


def test_nothing_is_replaced_where_embeddings_and_head_are_trained(tiny: Tiny) -> None:
    train_new_rows(tiny.model, ids=[5])
    assert count_new_rows(tiny.model) == 0
