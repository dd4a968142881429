"""The parts of the search that need no engine: the copy of a model, bisection, and the rows that make a spike."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from transformers import MT5ForConditionalGeneration, PreTrainedModel

from dstrain.data.collate import MicroBatch
from dstrain.engine import faults
from dstrain.engine.engine import Fault
from dstrain.models.loss import Seq2SeqLoss
from tests.distributed.steps import EOS, build_batch, build_model, build_rows


def build_micro_batch(num_rows: int) -> MicroBatch:
    (micro_batch,) = build_batch(build_rows(num_rows=num_rows), sizes=[num_rows], rank=0, world_size=1).micro_batches
    return micro_batch


def copy_model(model: PreTrainedModel) -> PreTrainedModel:
    return faults.build_plain_model(type(model), model_config=model.config, tensors=faults.clone_tensors(model))


def untie(model: PreTrainedModel) -> PreTrainedModel:
    """As mT5's checkpoints are, whatever their config says."""
    assert isinstance(model, MT5ForConditionalGeneration)
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    assert model.config.tie_word_embeddings
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "model",
    [build_model("m2m100", dropout=0.0), build_model("mt5", dropout=0.0), untie(build_model("mt5", dropout=0.0))],
    ids=["m2m100", "mt5", "mt5 untied"],
)
def test_a_copy_computes_what_the_model_computes_and_shares_nothing_with_it(
    model: PreTrainedModel, dtype: torch.dtype
) -> None:
    model = model.to(dtype)
    copied = copy_model(model)
    part = build_micro_batch(4)
    inputs = (part.source_ids, part.source_mask, part.decoder_ids, part.labels)
    expected, found = (Seq2SeqLoss(each.eval())(*inputs) for each in (model, copied))
    assert torch.equal(expected, found)
    gradients = [
        torch.autograd.grad(loss, list(each.parameters())) for loss, each in ((expected, model), (found, copied))
    ]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in copied.parameters()}
    assert all(tensor.device.type == "cpu" for tensor in (*copied.parameters(), *copied.buffers()))


def test_a_frozen_parameter_stays_frozen_in_the_copy_and_hooks_stay_behind() -> None:
    model = build_model("m2m100", dropout=0.0)
    frozen = model.model.encoder.layers[0].fc1.weight.requires_grad_(False)
    model.register_forward_hook(lambda *given: pytest.fail("a hook of the run was called"))
    copied = copy_model(model)
    assert [p.requires_grad for p in copied.parameters()].count(False) == 1
    assert not copied.model.encoder.layers[0].fc1.weight.requires_grad
    frozen.data.fill_(torch.nan)
    assert faults.nonfinite_parameters(model) == ("model.encoder.layers.0.fc1.weight",)
    assert faults.nonfinite_parameters(copied) == ()
    part = build_micro_batch(2)
    copied(input_ids=part.source_ids, labels=part.labels.clamp(min=0))


@pytest.mark.parametrize("bad", [[], [0], [7], [3, 4], [0, 1, 2, 3, 4, 5, 6, 7], [1, 6]])
def test_bisection_finds_exactly_the_bad_rows(bad: list[int]) -> None:
    def is_bad(part: MicroBatch) -> bool:
        return bool(np.isin(part.rows, bad).any())

    found = faults.bisect(build_micro_batch(8), is_bad=is_bad)
    assert [part.rows.tolist() for part in found] == [[row] for row in bad]


def test_one_bad_row_of_many_costs_few_looks() -> None:
    looks: list[int] = []

    def is_bad(part: MicroBatch) -> bool:
        looks.append(len(part.rows))
        return 21 in part.rows

    faults.bisect(build_micro_batch(64), is_bad=is_bad)
    assert len(looks) == 1 + 2 * 6


def test_rows_that_are_bad_only_together_are_returned_together() -> None:
    def is_bad(part: MicroBatch) -> bool:
        return {1, 2} <= set(part.rows.tolist())

    (part,) = faults.bisect(build_micro_batch(8), is_bad=is_bad)
    assert part.rows.tolist() == [0, 1, 2, 3]


def merge(losses: Iterable[dict[int, tuple[float, int]]], *, fault: Fault) -> faults.FaultCause:
    batch = build_batch([(np.asarray([EOS]), np.asarray([5] * 9 + [EOS]))] * 10, sizes=[10], rank=0, world_size=1)
    return faults._merge([faults._RankResult(found) for found in losses], fault=fault, batch=batch)


def test_a_spike_is_blamed_on_the_fewest_rows_that_explain_it() -> None:
    # ten rows of ten tokens: a mean of 3.5 where 2.0 is allowed
    fault = Fault("spike", loss=3.5, loss_limit=2.0)
    assert dict(merge([{4: (25.0, 10)}, {7: (250.0, 10), 8: (21.0, 10)}], fault=fault).rows) == {7: 25.0}
    assert dict(merge([{4: (120.0, 10)}, {7: (130.0, 10), 8: (21.0, 10)}], fault=fault).rows) == {4: 12.0, 7: 13.0}


def test_rows_of_all_ranks_come_together_once() -> None:
    cause = merge(
        [{4: (float("inf"), 10)}, {2: (float("nan"), 10), 4: (float("inf"), 10)}], fault=Fault("loss", loss=1.0)
    )
    assert sorted(cause.rows) == [2, 4]
    assert (cause.suspects, cause.micro_batches) == ((), ())


def test_suspects_are_named_only_where_no_row_is() -> None:
    batch = build_batch(build_rows(num_rows=4), sizes=[4], rank=0, world_size=1)
    suspects = faults._RankResult(suspects=((3, (9, 8)),))
    fault = Fault("gradient", loss=1.0)
    alone = faults._merge([faults._RankResult(), suspects], fault=fault, batch=batch)
    assert (alone.suspects, alone.micro_batches, dict(alone.rows)) == ((8, 9), (3,), {})
    beside = faults._merge([faults._RankResult({1: (2.0, 1)}), suspects], fault=fault, batch=batch)
    assert (beside.suspects, beside.micro_batches, dict(beside.rows)) == ((), (), {1: 2.0})
