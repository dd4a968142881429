"""A run saved on any ranks and any ZeRO stage goes on, on any other, as if it had never stopped (promise 4)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dstrain.cluster.process_group import Ranks
from tests.distributed.ranks import run_ranks
from tests.distributed.steps import TOTAL_STEPS, build_batch, build_config, build_loss, build_rows

SIZES = [3, 1, 4, 2, 6]
SAVED_STEP, LAST_STEP = 3, 7


def train_steps(ranks: Ranks, root: str, stage: int, first: int, last: int, changes: dict[str, Any]) -> list[float]:
    """Losses a token of steps `first` to `last`; goes on from the newest checkpoint if `first` is not 1, saves at the end."""
    from dstrain.checkpoint.state import (
        RunIdentity,
        RunState,
        load_optimizer,
        load_state,
        load_weights,
        save_checkpoint,
    )
    from dstrain.checkpoint.store import step_dir
    from dstrain.engine.engine import build_engine

    config = build_config(**{"machine__zero_stage": stage, **changes})
    module = build_loss("m2m100", dropout=0.1)
    saved = step_dir(Path(root), step=first - 1)
    if first > 1:
        load_weights(saved, module=module)
    engine = build_engine(config, module=module, ranks=ranks, total_steps=TOTAL_STEPS)
    if first > 1:
        load_optimizer(saved, engine=engine, state=load_state(saved))
    losses = []
    for step in range(first, last + 1):
        rows = build_rows(seed=step)
        batch = build_batch(rows, sizes=SIZES, rank=ranks.rank, world_size=ranks.world_size)
        result = engine.step(batch, step=step)
        losses.append(ranks.sum([float(result.loss_sum)])[0] / batch.num_target_tokens)
    state = RunState(step=last, epoch=0, step_in_epoch=last, cut={}, data={})
    identity = RunIdentity(recipe_hash="", recipe={}, versions={})
    save_checkpoint(Path(root), engine=engine, state=replace(state, hooks={}), identity=identity, ranks=ranks)
    return losses


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_on_the_same_ranks_a_resumed_run_is_bit_equal(tmp_path: Path, stage: int, precision: str) -> None:
    changes = {"precision": precision}
    straight = run_ranks(train_steps, str(tmp_path / "a"), stage, 1, LAST_STEP, changes, world_size=2)
    run_ranks(train_steps, str(tmp_path / "b"), stage, 1, SAVED_STEP, changes, world_size=2)
    resumed = run_ranks(train_steps, str(tmp_path / "b"), stage, SAVED_STEP + 1, LAST_STEP, changes, world_size=2)
    assert resumed[0] == straight[0][SAVED_STEP:]


@pytest.mark.parametrize(
    ("saved", "resumed"),
    [((2, 2), (1, 1)), ((2, 2), (2, 3)), ((2, 3), (1, 2)), ((1, 0), (2, 3)), ((2, 0), (3, 2)), ((1, 3), (1, 0))],
)
def test_another_number_of_ranks_or_stage_goes_on_within_rounding(
    tmp_path: Path, saved: tuple[int, int], resumed: tuple[int, int]
) -> None:
    straight = run_ranks(train_steps, str(tmp_path / "a"), 0, 1, LAST_STEP, {}, world_size=1)
    run_ranks(train_steps, str(tmp_path / "b"), saved[1], 1, SAVED_STEP, {}, world_size=saved[0])
    given = run_ranks(
        train_steps, str(tmp_path / "b"), resumed[1], SAVED_STEP + 1, LAST_STEP, {}, world_size=resumed[0]
    )
    assert given[0] == pytest.approx(straight[0][SAVED_STEP:], rel=1e-6)
