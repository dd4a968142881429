"""Loss, gradient and weights do not depend on the split, the ranks or the ZeRO stage (promise 1)."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from dstrain.cluster.process_group import Ranks
from tests.distributed.ranks import run_ranks
from tests.distributed.steps import (
    EOS,
    PAD,
    TOTAL_STEPS,
    build_batch,
    build_config,
    build_loss,
    build_model,
    build_rows,
    plain_loop,
)

STEPS = 4
START = {"m2m100": EOS, "mt5": PAD}


def train_engine(ranks: Ranks, kind: str, sizes: Sequence[int], dropout: float, changes: dict[str, Any]) -> Any:
    """Losses a token, gradient norms and whole fp32 weights after a few steps on DeepSpeed."""
    from dstrain.engine.engine import build_engine

    config = build_config(**changes)
    engine = build_engine(config, module=build_loss(kind, dropout=dropout), ranks=ranks, total_steps=TOTAL_STEPS)
    rows = build_rows()
    losses, norms = [], []
    for step in range(1, STEPS + 1):
        batch = build_batch(rows, sizes=sizes, rank=ranks.rank, world_size=ranks.world_size, start=START[kind])
        result = engine.step(batch, step=step)
        losses.append(ranks.sum([float(result.loss_sum)])[0] / batch.num_target_tokens)
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


def test_without_dropout_every_split_of_a_step_gives_the_same_loss_and_gradient() -> None:
    given = [run_ranks(train_engine, "m2m100", sizes, 0.0, {}, world_size=1)[0] for sizes in ([16], [4] * 4, [2] * 8)]
    for losses, norms, _ in given[1:]:
        assert losses == pytest.approx(given[0][0], rel=1e-5)
        assert norms == pytest.approx(given[0][1], rel=1e-4)
