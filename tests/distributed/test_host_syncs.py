"""How often a step reads a value of a tensor on the host: each time the host would wait for the GPU.

Reads are counted for tensors of any device, so the test needs no GPU. Most of the remaining reads are those of DeepSpeed, which
checks whether the gradient is finite.
"""

from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from torch.utils._python_dispatch import TorchDispatchMode

from dstrain.cluster.process_group import Ranks
from tests.distributed.ranks import run_ranks
from tests.distributed.steps import TOTAL_STEPS, build_batch, build_config, build_loss, build_rows

A_MICRO_BATCH = 1
"""The labels, counted on the host."""
DRAWS_ON_THE_HOST = (
    {"m2m100": 4, "mt5": 0} if Version(transformers.__version__) < Version("5.23") else {"m2m100": 0, "mt5": 0}
)
"""Before 5.23 transformers draws a random number for every layer even where no layer is dropped; no GPU is waited for."""
A_STEP = 4
"""Reads by DeepSpeed, for overflow and the gradient's norm; at most."""


class Reads(TorchDispatchMode):
    """Counts values that are read from tensors."""

    num_reads = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num_reads += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


def count_reads(ranks: Ranks, kind: str, changes: dict[str, Any]) -> list[int]:
    """Values read in a step of 2 micro-batches, of 4 and of 8."""
    from dstrain.engine.build import build_engine

    config = build_config(**changes)
    engine = build_engine(config, module=build_loss(kind, dropout=0.1), ranks=ranks, total_steps=TOTAL_STEPS)
    found = []
    for step, size in enumerate([8, 8, 4, 2], start=1):
        batch = build_batch(build_rows(), sizes=[size] * (16 // size), rank=0, world_size=1)
        with Reads() as reads:
            engine.step(batch, step=step)
        found.append(reads.num_reads)
    return found[1:]  # the first step includes one-time setup


@pytest.mark.parametrize("kind", ["m2m100", "mt5"])
@pytest.mark.parametrize(("stage", "precision"), [(1, "fp32"), (1, "bf16"), (2, "bf16"), (3, "fp32"), (3, "bf16")])
def test_a_step_reads_a_few_values_whatever_the_number_of_parameters(kind: str, stage: int, precision: str) -> None:
    (reads,) = run_ranks(count_reads, kind, {"machine__zero_stage": stage, "precision": precision}, world_size=1)
    two, four, eight = reads
    a_micro_batch = A_MICRO_BATCH + DRAWS_ON_THE_HOST[kind]
    assert (four - two, eight - four) == (2 * a_micro_batch, 4 * a_micro_batch)
    assert two - 2 * a_micro_batch <= A_STEP
