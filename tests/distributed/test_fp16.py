"""fp16 with dynamic loss scaling, forced on a CPU: a skipped step counts, and uses up its rows and learning rate."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig
from dstrain.engine.schedule import learning_rate_at
from tests.distributed.ranks import run_ranks
from tests.distributed.saving import resume_optimizer, resume_weights, save_now, saved_dir
from tests.distributed.steps import TOTAL_STEPS, build_batch, build_config, build_loss, build_rows

STEPS = 10
SIZES = [3, 5, 4, 4]
SCALE_POWER = 20
"""2^20 overflows on the first steps with these models, so that skipping is really exercised."""


def half_config(stage: int) -> RunConfig:
    return build_config(
        precision="fp16", machine__zero_stage=stage, machine__deepspeed={"fp16": {"initial_scale_power": SCALE_POWER}}
    )


def train_half(ranks: Ranks, stage: int, root: str, saved_at: int | None, first: int) -> list[dict[str, Any]]:
    """One record per step; saves after step `saved_at`, and resumes from the checkpoint before step `first`."""
    from deepspeed.accelerator import get_accelerator

    from dstrain.engine.build import build_engine

    type(get_accelerator()).is_fp16_supported = lambda self: True
    module = build_loss("m2m100", dropout=0.0)
    saved = saved_dir(Path(root), step=first - 1)
    if first > 1:
        resume_weights(saved, module=module)
    engine = build_engine(half_config(stage), module=module, ranks=ranks, total_steps=TOTAL_STEPS)
    if first > 1:
        resume_optimizer(saved, engine=engine)
    records = []
    for step in range(first, (saved_at or STEPS) + 1):
        scale = engine.loss_scale
        batch = build_batch(build_rows(seed=step % 2), sizes=SIZES, rank=ranks.rank, world_size=ranks.world_size)
        result = engine.step(batch, step=step)
        assert result.fault is None  # the scale can still fall, so an overflow is routine
        loss = ranks.sum([float(result.loss_sum)])[0] / batch.target_tokens
        records.append(
            {"step": step, "loss": loss, "scale": scale, "rate": result.learning_rate, "applied": result.applied}
            | {"skipped": engine.skipped_steps, "norm": float(result.grad_norm)}
        )
    if saved_at is not None:
        save_now(Path(root), engine=engine, step=saved_at, ranks=ranks)
    return records


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_overflow_skips_a_step_halves_the_scale_and_survives_a_restart(tmp_path: Path, stage: int) -> None:
    straight = run_ranks(train_half, stage, str(tmp_path / "a"), None, 1, world_size=2)[0]
    skipped = [record for record in straight if not record["applied"]]
    assert 0 < len(skipped) < STEPS - 2
    assert straight[-1]["skipped"] == len(skipped)
    assert straight[-1]["scale"] < straight[0]["scale"] == 2.0**SCALE_POWER
    assert straight[-1]["loss"] < straight[0]["loss"]
    training = half_config(stage).training
    for record in straight:
        assert record["rate"] == learning_rate_at(record["step"], training=training, total_steps=TOTAL_STEPS)
    middle = skipped[-1]["step"]
    run_ranks(train_half, stage, str(tmp_path / "b"), middle, 1, world_size=2)
    resumed = run_ranks(train_half, stage, str(tmp_path / "b"), None, middle + 1, world_size=2)[0]
    assert [without_norm(record) for record in resumed] == [without_norm(record) for record in straight[middle:]]


def without_norm(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "norm"}


def test_gradients_of_applied_fp16_steps_are_near_those_of_fp32() -> None:
    half = run_ranks(train_half, 1, "unused", None, 1, world_size=1)[0]
    first = next(record for record in half if record["applied"])
    assert torch.isfinite(torch.tensor(first["norm"]))
    assert first["loss"] == pytest.approx(half[0]["loss"], rel=0.2)
