"""What is checked and built before DeepSpeed: the optimizer's groups, a refused precision."""

from typing import Any, cast

import pytest
import torch
from deepspeed.accelerator import get_accelerator
from torch import nn

from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from dstrain.config.recipe import Training
from dstrain.engine.build import build_engine, build_optimizer, check_device_precision
from tests.distributed.steps import build_config


def build_training(**changes: Any) -> Training:
    return Training.model_validate({"batch_size": 1, "max_steps": 1, "learning_rate": 0.25, **changes})


def build_module() -> nn.Module:
    module = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 5, bias=False))
    module[3].weight = module[0].weight
    module[1].bias.requires_grad_(False)  # type: ignore[union-attr]
    return module


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_biases_and_normalisation_weights_are_not_decayed(kind: str) -> None:
    module = build_module()
    optimizer = build_optimizer(module, training=build_training(optimizer=kind, weight_decay=0.1))
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    assert [id(p) for p in decayed["params"]] == [id(module[0].weight), id(module[1].weight)]
    assert [id(p) for p in plain["params"]] == [id(module[2].weight), id(module[2].bias)]


def test_without_weight_decay_there_is_one_group_of_all_trained_parameters_each_once() -> None:
    optimizer = build_optimizer(build_module(), training=build_training())
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0.0
    assert len(group["params"]) == 4


@pytest.mark.parametrize(
    ("kind", "expected"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_the_recipes_settings_reach_the_optimizer(kind: str, expected: type) -> None:
    training = build_training(optimizer=kind, betas=(0.8, 0.95), epsilon=1e-6)
    optimizer = build_optimizer(build_module(), training=training)
    assert type(optimizer) is expected
    assert optimizer.defaults["lr"] == 0.25
    if kind == "sgd":
        assert optimizer.defaults["momentum"] == 0.8
    else:
        assert (optimizer.defaults["betas"], optimizer.defaults["eps"]) == ((0.8, 0.95), 1e-6)


def show_fp16(monkeypatch: pytest.MonkeyPatch, *, supported: bool) -> None:
    monkeypatch.setattr(type(get_accelerator()), "is_fp16_supported", lambda self: supported)


def test_fp16_is_refused_where_deepspeed_does_not_train_it(monkeypatch: pytest.MonkeyPatch) -> None:
    show_fp16(monkeypatch, supported=False)
    config = build_config(precision="fp16")
    with pytest.raises(ValueError, match=r"precision: .*fp16.*override precision=fp32"):
        check_device_precision(config)
    ranks = Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None)
    with pytest.raises(ValueError, match="precision: "):
        build_engine(config, module=cast(Any, build_module()), ranks=ranks, total_steps=1)


@pytest.mark.parametrize(("precision", "supported"), [("fp32", False), ("bf16", False), ("fp16", True)])
def test_other_precisions_pass(precision: str, supported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    show_fp16(monkeypatch, supported=supported)
    check_device_precision(build_config(precision=precision))
