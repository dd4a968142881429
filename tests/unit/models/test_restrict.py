"""Models with part of their rows: the loss of the whole model with the other logits at minus infinity, and back, bit for bit."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.restrict import copy_rows_back, keep_rows, read_more
from tests.unit.models.test_loss import decoder_ids_of

NEVER = -1e30
"""A logit whose exponential is 0, as that of minus infinity, but of which 0 times is not undefined."""


@pytest.fixture(params=[True, False], ids=["tied", "own head"])
def case(request: pytest.FixtureRequest, tiny: Any) -> Any:
    """The model as it is, or with a head of its own, as published mT5 has it."""
    if not request.param:
        if tiny.family not in ("t5", "mt5"):
            pytest.skip("only T5 and mT5 have heads of their own")
        head = tiny.model.get_output_embeddings()
        head.weight = torch.nn.Parameter(0.1 * torch.randn_like(head.weight))
        tiny.model.config.tie_word_embeddings = tiny.model.config.scale_decoder_outputs = False
    return tiny


def used_ids(case: Any, batch: Any) -> list[int]:
    labels = batch.labels[batch.labels != -100].tolist()
    special = [*case.tokenizer.tokenizer.all_special_ids, *case.tokenizer.languages.values()]
    return sorted({*batch.source_ids.flatten().tolist(), *labels, *special})


def in_rows(ids: torch.Tensor, kept: list[int]) -> torch.Tensor:
    row_of = {token_id: row for row, token_id in enumerate(kept)} | {-100: -100}
    return torch.tensor([[row_of[each] for each in row] for row in ids.tolist()])


def small_loss(small: Any, *, kept: list[int], batch: Any, decoder_ids: torch.Tensor, **options: Any) -> torch.Tensor:
    loss: torch.Tensor = Seq2SeqLoss(small, **options).train()(
        in_rows(batch.source_ids, kept), batch.source_mask, in_rows(decoder_ids, kept), in_rows(batch.labels, kept)
    )
    return loss


def whole_loss(whole: Any, *, kept: list[int], batch: Any, decoder_ids: torch.Tensor) -> torch.Tensor:
    """That of the stock model, with the logits of all other ids at minus infinity."""
    logits = whole(input_ids=batch.source_ids, attention_mask=batch.source_mask, decoder_input_ids=decoder_ids).logits
    absent = torch.ones(logits.shape[-1], dtype=torch.bool)
    absent[kept] = False
    logits = logits.masked_fill(absent, NEVER)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="sum")


def test_value_and_gradient_are_those_of_the_whole_model_with_the_other_logits_at_minus_infinity(
    case: Any, batch_of: Callable[..., Any]
) -> None:
    batch = batch_of(case, num_rows=2)
    kept, decoder_ids = used_ids(case, batch), decoder_ids_of(case, batch.labels)
    whole, small = case.model, copy.deepcopy(case.model)
    keep_rows(small, kept)
    assert len(kept) < len(whole.get_input_embeddings().weight)
    expected = whole_loss(whole, kept=kept, batch=batch, decoder_ids=decoder_ids)
    found = small_loss(small, kept=kept, batch=batch, decoder_ids=decoder_ids)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.0)
    expected.backward()
    found.backward()
    of_whole = dict(whole.named_parameters())
    for name, parameter in small.named_parameters():
        gradient = of_whole[name].grad
        if not parameter.requires_grad:  # Marian's positions
            continue
        assert gradient is not None
        assert parameter.grad is not None
        if gradient.shape != parameter.grad.shape:
            absent = torch.ones(len(gradient), dtype=torch.bool)
            absent[kept] = False
            assert not gradient[absent].any()
            gradient = gradient[kept]
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_ties_scales_and_padding_are_as_before(case: Any, batch_of: Callable[..., Any]) -> None:
    kept = used_ids(case, batch_of(case, num_rows=2))
    small = copy.deepcopy(case.model)
    keep_rows(small, kept)
    assert {name for name, _ in small.named_parameters()} == {name for name, _ in case.model.named_parameters()}
    assert small.config.vocab_size == len(kept)
    for config in (small.config, small.generation_config):
        assert kept[config.pad_token_id] == case.tokenizer.pad_token_id
        assert kept[config.eos_token_id] == case.tokenizer.tokenizer.eos_token_id
    for before, now in zip(case.model.modules(), small.modules(), strict=True):
        if isinstance(now, torch.nn.Embedding) and now.num_embeddings == len(kept) and now.padding_idx is not None:
            assert kept[now.padding_idx] == before.padding_idx  # type: ignore[union-attr]


def test_rows_are_written_back_bit_for_bit_and_the_others_stay(case: Any, batch_of: Callable[..., Any]) -> None:
    kept = used_ids(case, batch_of(case, num_rows=2))
    before = copy.deepcopy(case.model)
    small, whole = copy.deepcopy(case.model), case.model
    keep_rows(small, kept)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.normal_()
    copy_rows_back(small, ids=kept, whole=whole)
    again = copy.deepcopy(whole)
    keep_rows(again, kept)
    for (name, found), expected in zip(again.state_dict().items(), small.state_dict().values(), strict=True):
        assert torch.equal(found, expected), name
    absent = [row for row in range(len(before.get_input_embeddings().weight)) if row not in kept]
    for part in ("get_input_embeddings", "get_output_embeddings"):
        assert torch.equal(getattr(whole, part)().weight[absent], getattr(before, part)().weight[absent])


def test_more_can_be_read_than_written(case: Any, batch_of: Callable[..., Any]) -> None:
    batch = batch_of(case, num_rows=2)
    kept, decoder_ids = used_ids(case, batch), decoder_ids_of(case, batch.labels)
    # a token of the second source is not among those that were trained
    (further,) = [each for each in batch.source_ids[1].tolist() if each not in batch.source_ids[0]][:1]
    trained = [each for each in kept if each != further]
    if further in batch.labels:
        pytest.skip("the token is in a reference too")
    small = copy.deepcopy(case.model)
    keep_rows(small, trained)
    read_more(small, case.model.get_input_embeddings().weight[[further]])
    row_of = {each: row for row, each in enumerate([*trained, further])}
    source_ids = torch.tensor([[row_of[each] for each in row] for row in batch.source_ids.tolist()])
    found = Seq2SeqLoss(small)(
        source_ids, batch.source_mask, in_rows(decoder_ids, trained), in_rows(batch.labels, trained)
    )
    expected = whole_loss(case.model, kept=trained, batch=batch, decoder_ids=decoder_ids)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("label_smoothing", [0.1])
def test_label_smoothing_spreads_over_the_kept_ids(
    label_smoothing: float, case: Any, batch_of: Callable[..., Any]
) -> None:
    batch = batch_of(case, num_rows=2)
    kept, decoder_ids = used_ids(case, batch), decoder_ids_of(case, batch.labels)
    small = copy.deepcopy(case.model)
    keep_rows(small, kept)
    found = small_loss(small, kept=kept, batch=batch, decoder_ids=decoder_ids, label_smoothing=label_smoothing)
    logits = case.model(
        input_ids=batch.source_ids, attention_mask=batch.source_mask, decoder_input_ids=decoder_ids
    ).logits[:, :, kept]
    labels = in_rows(batch.labels, kept)
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=label_smoothing
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0.0)
