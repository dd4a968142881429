"""Loss, gradient and weights do not depend on the split, the ranks or the ZeRO stage (promise 1)."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from dstrain.cluster.process_group import Ranks
from tests.distributed.ranks import run_ranks
from tests.distributed.steps import (
    EOS,
    PAD,
    TOTAL_STEPS,
    VOCABULARY,
    build_batch,
    build_config,
    build_loss,
    build_model,
    build_rows,
    plain_loop,
)

STEPS = 4
START = {"m2m100": EOS, "mt5": PAD}


def untie(model: PreTrainedModel) -> PreTrainedModel:
    """The model with an untied head, as in published mT5 models; transformers ties the head of models made from scratch."""
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().flip(0))
    return model


def train_engine(
    ranks: Ranks,
    kind: str,
    sizes: Sequence[int],
    dropout: float,
    changes: dict[str, Any],
    chunk_positions: int | None = None,
    is_untied: bool = False,
) -> Any:
    """Losses per token, gradient norms and complete fp32 weights after a few steps on DeepSpeed."""
    from dstrain.engine.build import build_engine
    from dstrain.models.load import enable_activation_checkpointing

    config = build_config(**changes)
    module = build_loss(kind, dropout=dropout)
    if chunk_positions is not None:
        module.projection.max_logits = chunk_positions * VOCABULARY
    if is_untied:
        untie(module.model)
    if config.machine.activation_checkpointing:
        enable_activation_checkpointing(module.model)
    engine = build_engine(config, module=module, ranks=ranks, total_steps=TOTAL_STEPS)
    rows = build_rows()
    losses, norms = [], []
    for step in range(1, STEPS + 1):
        batch = build_batch(rows, sizes=sizes, rank=ranks.rank, world_size=ranks.world_size, start=START[kind])
        result = engine.step(batch, step=step)
        losses.append(ranks.sum([float(result.loss_sum)])[0] / batch.target_tokens)
        norms.append(float(result.grad_norm))
    with engine.gathered() as model:
        weights = {name: value.detach().float().clone().numpy() for name, value in model.named_parameters()}
    return losses, norms, weights


@pytest.mark.parametrize("kind", ["m2m100", "mt5"])
@pytest.mark.parametrize(
    ("world_size", "stage", "sizes"),
    [
        (1, 0, [16]),
        (1, 1, [4, 4, 4, 4]),
        (1, 3, [2] * 8),
        (2, 0, [3, 1, 4, 2, 6]),
        (2, 1, [16]),
        (2, 2, [3, 1, 4, 2, 6]),
        (2, 3, [5, 4, 7]),
    ],
)
def test_steps_equal_a_plain_pytorch_loop_with_dropout_on(
    kind: str, world_size: int, stage: int, sizes: list[int]
) -> None:
    changes = {"machine__zero_stage": stage}
    given = run_ranks(train_engine, kind, sizes, 0.1, changes, world_size=world_size)
    losses, norms, weights = plain_loop(
        build_model(kind, dropout=0.1),
        rows=build_rows(),
        sizes=sizes,
        config=build_config(**changes),
        steps=STEPS,
        start=START[kind],
    )
    for rank_losses, rank_norms, rank_weights in given:
        assert rank_losses == pytest.approx(losses, rel=1e-5)
        assert rank_norms == pytest.approx(norms, rel=1e-4)
        for name, value in weights.items():
            torch.testing.assert_close(torch.from_numpy(rank_weights[name]), value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "is_untied"), [("m2m100", False), ("mt5", True)])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_ranks_may_need_different_numbers_of_chunks_with_the_head_tied_or_not(
    kind: str, is_untied: bool, stage: int
) -> None:
    changes = {"machine__zero_stage": stage}
    given = run_ranks(train_engine, kind, [1, 15], 0.1, changes, 3, is_untied, world_size=2)
    model = build_model(kind, dropout=0.1)
    losses, norms, weights = plain_loop(
        untie(model) if is_untied else model,
        rows=build_rows(),
        sizes=[1, 15],
        config=build_config(**changes),
        steps=STEPS,
        start=START[kind],
    )
    for rank_losses, rank_norms, rank_weights in given:
        assert rank_losses == pytest.approx(losses, rel=1e-5)
        assert rank_norms == pytest.approx(norms, rel=1e-4)
        assert ("lm_head.weight" in rank_weights) == is_untied
        for name, value in weights.items():
            torch.testing.assert_close(torch.from_numpy(rank_weights[name]), value, rtol=1e-4, atol=1e-5)


def count_moves(ranks: Ranks, stage: int, precision: str) -> int:
    """How often building an engine moves the whole module to the device."""
    from dstrain.engine.build import build_engine

    module = build_loss("mt5", dropout=0.0)
    config = build_config(machine__zero_stage=stage, precision=precision)
    with patch.object(type(module), "to", autospec=True) as move:
        build_engine(config, module=module, ranks=ranks, total_steps=TOTAL_STEPS)
    return move.call_count


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stage_3_never_moves_the_whole_model_to_the_device(precision: str) -> None:
    assert run_ranks(count_moves, 2, precision, world_size=2) == [1, 1]
    assert run_ranks(count_moves, 3, precision, world_size=2) == [0, 0]


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_gradient_does_not_depend_on_how_many_micro_batches_are_summed(precision: str, stage: int) -> None:
    norms = run_ranks(measure_norms, precision, stage, world_size=1)[0]
    assert norms[128] == pytest.approx(norms[1], rel=1e-5 if precision == "fp32" else 2e-4)


def measure_norms(ranks: Ranks, precision: str, stage: int) -> dict[int, float]:
    """The gradient's norm at the first step of 128 rows, by the number of micro-batches."""
    from dstrain.engine.build import build_engine

    rows, norms = build_rows(num_rows=128), {}
    for num_parts in (1, 128):
        config = build_config(precision=precision, machine__zero_stage=stage)
        engine = build_engine(config, module=build_loss("m2m100", dropout=0.0), ranks=ranks, total_steps=TOTAL_STEPS)
        batch = build_batch(rows, sizes=[128 // num_parts] * num_parts, rank=0, world_size=1)
        norms[num_parts] = float(engine.step(batch, step=1).grad_norm)
    return norms


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_every_process_group_has_the_time_out_of_the_run(stage: int) -> None:
    found = run_ranks(list_timeouts, stage, world_size=2)
    assert found == [{timedelta(minutes=2)}] * 2


def list_timeouts(ranks: Ranks, stage: int) -> set[timedelta]:
    """The time-outs of all groups of this process, those of DeepSpeed included."""
    from dstrain.engine.build import build_engine

    config = build_config(machine__zero_stage=stage)
    engine = build_engine(config, module=build_loss("m2m100", dropout=0.0), ranks=ranks, total_steps=TOTAL_STEPS)
    engine.step(build_batch(build_rows(), sizes=[8, 8], rank=ranks.rank, world_size=2), step=1)
    ranks.beside().barrier()
    made = torch.distributed.distributed_c10d._world.pg_map
    assert len(made) >= 3
    return {group._get_backend(torch.device("cpu")).options._timeout for group in made}


def test_without_dropout_every_split_of_a_step_has_the_same_loss_and_gradient() -> None:
    given = [run_ranks(train_engine, "m2m100", sizes, 0.0, {}, world_size=1)[0] for sizes in ([16], [4] * 4, [2] * 8)]
    for losses, norms, _ in given[1:]:
        assert losses == pytest.approx(given[0][0], rel=1e-5)
        assert norms == pytest.approx(given[0][1], rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"machine__zero_stage": 2, "machine__offload_optimizer": True},
        {"machine__zero_stage": 3, "machine__offload_optimizer": True, "machine__offload_parameters": True},
        {"machine__zero_stage": 1, "machine__activation_checkpointing": True},
        {"machine__zero_stage": 3, "machine__activation_checkpointing": True},
    ],
    ids=lambda changes: "-".join(name.removeprefix("machine__") for name in changes),
)
def test_options_that_save_memory_do_not_change_training(changes: dict[str, Any]) -> None:
    plain = run_ranks(train_engine, "m2m100", [3, 5, 8], 0.1, {"machine__zero_stage": 1}, world_size=2)[0]
    given = run_ranks(train_engine, "m2m100", [3, 5, 8], 0.1, changes, world_size=2)[0]
    assert given[0] == pytest.approx(plain[0], rel=1e-5)
    assert given[1] == pytest.approx(plain[1], rel=1e-4)
    for name, value in plain[2].items():
        torch.testing.assert_close(torch.from_numpy(given[2][name]), torch.from_numpy(value), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bf16_stays_near_fp32(stage: int) -> None:
    """With a tolerance of its own: bf16 keeps 8 bits, so losses of the first steps agree within 2 %."""
    plain = run_ranks(train_engine, "m2m100", [8, 8], 0.0, {}, world_size=1)[0]
    changes = {"precision": "bf16", "machine__zero_stage": stage}
    given = run_ranks(train_engine, "m2m100", [8, 8], 0.0, changes, world_size=2)[0]
    assert given[0] == pytest.approx(plain[0], rel=2e-2)
