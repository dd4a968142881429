"""The loss compared with that of the stock models, in value and in the gradient of every parameter."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from dstrain.models.families import decoder_start_id
from dstrain.models.load import enable_activation_checkpointing
from dstrain.models.loss import Seq2SeqLoss

Gradients = dict[str, Tensor]


def decoder_ids_of(tiny: Any, labels: Tensor) -> Tensor:
    """Decoder inputs by the rule in `decoder_start_id`, independent of the code of transformers."""
    start, pad = decoder_start_id(tiny.model), tiny.tokenizer.pad_token_id
    rows = []
    for row in labels.tolist():
        real = [i for i in row if i != -100]
        shifted = [real[-1] if start is None else start, *real[:-1]]
        rows.append(shifted + [pad] * (len(row) - len(shifted)))
    return torch.tensor(rows)


def stock_decoder_ids(tiny: Any, labels: Tensor) -> Tensor:
    """The decoder inputs that the stock model makes from labels."""
    seen: list[Tensor] = []
    decoder = tiny.model.get_decoder()
    handle = decoder.register_forward_pre_hook(lambda _, args, kw: seen.append(kw["input_ids"]), with_kwargs=True)
    tiny.model(input_ids=torch.ones_like(labels), labels=labels)
    handle.remove()
    return seen[0]


def gradients_of(tiny: Any, loss: Tensor) -> Gradients:
    tiny.model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in tiny.model.named_parameters() if p.grad is not None}


def summed(tiny: Any, batch: Any, **options: Any) -> Tensor:
    ids = decoder_ids_of(tiny, batch.labels)
    return Seq2SeqLoss(tiny.model, **options).train()(batch.source_ids, batch.source_mask, ids, batch.labels)


def assert_same(found: Gradients, expected: Gradients, *, rtol: float = 1e-4, has_large_terms: bool = False) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        # sums of large terms are rounded as these are
        atol = 1e-5 * max(1.0, float(expected[name].abs().max())) if has_large_terms else 1e-5
        torch.testing.assert_close(found[name], expected[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def test_value_and_every_gradient_equal_the_stock_loss_times_its_tokens(
    tiny: Any, batch_of: Callable[..., Any]
) -> None:
    batch = batch_of(tiny, num_rows=5)
    num_tokens = int((batch.labels != -100).sum())
    stock = (
        tiny.model(input_ids=batch.source_ids, attention_mask=batch.source_mask, labels=batch.labels).loss * num_tokens
    )
    expected = gradients_of(tiny, stock)
    loss = summed(tiny, batch)
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    torch.testing.assert_close(loss, stock, rtol=1e-5, atol=0.0)
    assert_same(gradients_of(tiny, loss), expected)


def test_decoder_inputs_by_the_stated_rule_are_the_stock_models_own(tiny: Any, batch_of: Callable[..., Any]) -> None:
    labels = batch_of(tiny, num_rows=5).labels
    real = labels != -100
    assert torch.equal(decoder_ids_of(tiny, labels)[real], stock_decoder_ids(tiny, labels)[real])


def test_mbart_decoder_inputs_begin_with_the_target_language(tiny: Any, batch_of: Callable[..., Any]) -> None:
    if tiny.family not in ("mbart", "mbart50"):
        pytest.skip("a rule of mBART's")
    language = tiny.tokenizer.language_id("en_XX")
    ids = decoder_ids_of(tiny, batch_of(tiny, num_rows=5).labels)
    column = 0 if tiny.family == "mbart" else 1
    assert ids[:, column].tolist() == [language] * 5


def test_chunks_change_neither_value_nor_gradient(tiny: Any, batch_of: Callable[..., Any]) -> None:
    batch = batch_of(tiny, num_rows=5)
    whole = summed(tiny, batch)
    expected = gradients_of(tiny, whole)
    chunked = summed(tiny, batch, max_logits=3 * tiny.model.config.vocab_size)
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=0.0)
    assert_same(gradients_of(tiny, chunked), expected)


def test_a_known_number_of_positions_changes_nothing(tiny: Any, batch_of: Callable[..., Any]) -> None:
    batch = batch_of(tiny, num_rows=5)
    ids = decoder_ids_of(tiny, batch.labels)
    loss = Seq2SeqLoss(tiny.model)
    told = loss(batch.source_ids, batch.source_mask, ids, batch.labels, num_positions=int((batch.labels != -100).sum()))
    assert torch.equal(told, loss(batch.source_ids, batch.source_mask, ids, batch.labels))


def test_label_smoothing_equals_torchs_in_training_and_is_off_in_evaluation(
    tiny: Any, batch_of: Callable[..., Any]
) -> None:
    batch = batch_of(tiny, num_rows=5)
    ids = decoder_ids_of(tiny, batch.labels)
    logits = tiny.model(input_ids=batch.source_ids, attention_mask=batch.source_mask, decoder_input_ids=ids).logits
    flat, labels = logits.flatten(0, 1), batch.labels.flatten()
    module = Seq2SeqLoss(tiny.model, label_smoothing=0.1, max_logits=3 * tiny.model.config.vocab_size)
    smooth = functional.cross_entropy(flat, labels, reduction="sum", label_smoothing=0.1)
    sharp = functional.cross_entropy(flat, labels, reduction="sum")
    arguments = (batch.source_ids, batch.source_mask, ids, batch.labels)
    torch.testing.assert_close(module.train()(*arguments), smooth, rtol=1e-5, atol=0.0)
    torch.testing.assert_close(module.eval()(*arguments), sharp, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("cut", [(4, 4, 4, 4), (8, 8), (3, 1, 7, 5)])
def test_every_cut_of_sixteen_rows_sums_to_the_same_gradient(
    tiny: Any, batch_of: Callable[..., Any], cut: tuple[int, ...]
) -> None:
    batch = batch_of(tiny, num_rows=16)
    whole = summed(tiny, batch)
    expected = gradients_of(tiny, whole)
    tiny.model.zero_grad()
    total, first = 0.0, 0
    for num_rows in cut:
        part = type(batch)(*(tensor[first : first + num_rows] for tensor in batch))
        loss = summed(tiny, part)
        loss.backward()
        total, first = total + loss.item(), first + num_rows
    assert total == pytest.approx(whole.item(), rel=1e-5)
    assert_same({name: p.grad for name, p in tiny.model.named_parameters() if p.grad is not None}, expected)


def test_activation_checkpointing_changes_no_gradient(tiny: Any, batch_of: Callable[..., Any]) -> None:
    batch = batch_of(tiny, num_rows=5)
    expected = gradients_of(tiny, summed(tiny, batch))
    enable_activation_checkpointing(tiny.model)
    calls: list[None] = []
    attention = next(
        module for name, module in tiny.model.named_modules() if name.endswith(("self_attn", "SelfAttention"))
    )
    attention.register_forward_hook(lambda *_: calls.append(None))
    assert_same(gradients_of(tiny, summed(tiny, batch)), expected)
    assert len(calls) == 2  # once in the forward pass and once more in the backward pass


def test_parameter_names_are_those_of_the_model_and_each_is_counted_once(tiny: Any) -> None:
    names = [name for name, _ in Seq2SeqLoss(tiny.model).named_parameters()]
    assert names == [f"model.{name}" for name, _ in tiny.model.named_parameters()]
