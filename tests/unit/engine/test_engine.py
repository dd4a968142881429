"""The parts of the engine that need no DeepSpeed engine: seeds, poisoned losses, the counters of a loss scale."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from deepspeed.runtime.fp16 import loss_scaler
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler

from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from dstrain.engine.engine import Engine, _poison_if_bad, micro_batch_seed
from tests.distributed.steps import build_config


@pytest.mark.parametrize(
    ("seed", "step", "index", "expected"),
    [
        (42, 1, 0, 1923461445351437774),
        (42, 1, 1, 6257108568069917539),
        (42, 2, 0, 6114920977317368801),
        (0, 1, 0, 2994300784048610342),
    ],
)
def test_the_seed_of_a_micro_batch_never_changes(seed: int, step: int, index: int, expected: int) -> None:
    assert micro_batch_seed(seed, step=step, index=index) == expected


def test_every_micro_batch_has_a_seed_of_its_own_that_torch_takes() -> None:
    seeds = {
        micro_batch_seed(seed, step=step, index=index)
        for seed in (0, 1, 11, 2**32 - 1)
        for step in range(1, 60)
        for index in range(30)
    }
    assert len(seeds) == 4 * 59 * 30
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    torch.Generator().manual_seed(max(seeds))


@pytest.mark.parametrize("loss_sum", [float("inf"), float("-inf"), float("nan")])
def test_a_loss_that_is_not_finite_poisons_a_finite_gradient(loss_sum: float) -> None:
    weight = torch.ones(2, requires_grad=True)
    _poison_if_bad(weight.sum(), loss_sum=torch.tensor(loss_sum), mean_loss=None, loss_limit=None).backward()
    assert weight.grad is not None
    assert weight.grad.isnan().all()


@pytest.mark.parametrize(("mean_loss", "is_poisoned"), [(3.9, False), (4.0, False), (4.1, True)])
def test_a_loss_over_the_limit_poisons_the_gradient_and_any_other_leaves_it(
    mean_loss: float, is_poisoned: bool
) -> None:
    weight = torch.full((2,), 0.1, requires_grad=True)
    scaled = (weight * 3).sum()
    _poison_if_bad(scaled, loss_sum=torch.tensor(8.0), mean_loss=mean_loss, loss_limit=4.0).backward()
    assert weight.grad is not None
    assert weight.grad.isnan().all() if is_poisoned else weight.grad.tolist() == [3.0, 3.0]


def build_fp16_engine(scaler: Any) -> Engine:
    """An engine around a DeepSpeed engine's few attributes that its counters need."""
    parameter = torch.zeros(2, requires_grad=True)
    torch_optimizer = torch.optim.AdamW([parameter])
    wrapped = SimpleNamespace(
        optimizer=SimpleNamespace(
            optimizer=torch_optimizer, loss_scaler=scaler, single_partition_of_fp32_groups=[parameter]
        ),
        zero_optimization_stage=lambda: 1,
        skipped_steps=0,
    )
    ranks = Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None)
    return Engine(wrapped, config=build_config(precision="fp16"), ranks=ranks, total_steps=1)


def build_dynamic_scaler() -> DynamicLossScaler:
    return DynamicLossScaler(
        init_scale=2**16, scale_window=1000, min_scale=1.0, delayed_shift=2, consecutive_hysteresis=False
    )


def test_the_counters_of_a_dynamic_loss_scale_survive_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scaler.dist, "get_rank", lambda: 0)
    old = build_fp16_engine(build_dynamic_scaler())
    for overflow in (True, True, False, True, False):
        old.wrapped.optimizer.loss_scaler.update_scale(overflow)
    new = build_fp16_engine(build_dynamic_scaler())
    new.restore_counters(loss_scaler=old.loss_scaler_state(), skipped_steps=3)
    assert vars(new.wrapped.optimizer.loss_scaler) == vars(old.wrapped.optimizer.loss_scaler)
    assert new.wrapped.optimizer.loss_scaler.cur_scale < 2**16
    assert new.skipped_steps == 3


def test_of_a_saved_loss_scaler_only_the_known_counters_are_restored() -> None:
    engine = build_fp16_engine(LossScaler(128.0))
    engine.restore_counters(loss_scaler={"cur_scale": 64.0, "update_scale": 1.0}, skipped_steps=0)
    assert engine.loss_scaler_state() == {"cur_scale": 64.0}
    assert callable(engine.wrapped.optimizer.loss_scaler.update_scale)


def test_a_static_loss_scale_can_be_saved_too() -> None:
    engine = build_fp16_engine(LossScaler(128.0))
    assert engine.loss_scaler_state() == {"cur_scale": 128.0}
