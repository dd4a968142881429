"""Compiled layers under the engine: the same steps, and an evaluation that compiles nothing."""

from typing import Any

import pytest
import torch

from dstrain.cluster.process_group import Ranks
from tests.distributed.ranks import run_ranks
from tests.distributed.steps import EOS, PAD, TOTAL_STEPS, build_batch, build_config, build_loss, build_rows


def train(ranks: Ranks, kind: str, changes: dict[str, Any], is_compiled: bool) -> list[tuple[float, float, int, int]]:
    """For every step: the loss, the gradient norm, and the number of graphs before and after an evaluation."""
    from deepspeed.accelerator import get_accelerator
    from torch._dynamo.utils import counters

    from dstrain.engine.build import build_engine
    from dstrain.models.compilation import compile_layers
    from dstrain.models.loss import Seq2SeqLoss

    type(get_accelerator()).is_fp16_supported = lambda self: True
    module = build_loss(kind, dropout=0.1)
    if is_compiled:
        compile_layers(module.model)
    engine = build_engine(build_config(**changes), module=module, ranks=ranks, total_steps=TOTAL_STEPS)
    found = []
    for step in range(1, 4):
        rows, start = build_rows(seed=step), PAD if kind == "mt5" else EOS
        batch = build_batch(rows, sizes=[3, 5, 8], rank=ranks.rank, world_size=ranks.world_size, start=start)
        with torch.compiler.set_stance(force_backend="eager"):  # inductor has its own test
            result = engine.step(batch, step=step)
            before = int(counters["stats"]["unique_graphs"])
            with engine.gathered() as model:
                part = batch.micro_batches[0]
                Seq2SeqLoss(model)(part.source_ids, part.source_mask, part.decoder_ids, part.labels)
                model.generate(part.source_ids, attention_mask=part.source_mask, max_new_tokens=4)
        found.append((float(result.loss_sum), float(result.grad_norm), before, int(counters["stats"]["unique_graphs"])))
    return found


@pytest.mark.parametrize(
    ("kind", "precision", "stage", "num_graphs", "rtol"),
    [("m2m100", "fp32", 2, 2, 1e-5), ("m2m100", "fp16", 1, 2, 1e-2), ("mt5", "bf16", 1, 4, 1e-2)],
)
def test_steps_equal_those_of_eager_layers_and_evaluations_compile_nothing(
    kind: str, precision: str, stage: int, num_graphs: int, rtol: float
) -> None:
    changes = {"precision": precision, "machine__zero_stage": stage}
    (eager,) = run_ranks(train, kind, changes, False, world_size=1)
    (compiled,) = run_ranks(train, kind, changes, True, world_size=1)
    assert [row[2:] for row in eager] == [(0, 0)] * 3
    assert [row[2:] for row in compiled] == [(num_graphs, num_graphs)] * 3
    for found, expected in zip(compiled, eager, strict=True):
        assert found[:2] == pytest.approx(expected[:2], rel=rtol)
