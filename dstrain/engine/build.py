"""Puts DeepSpeed around a loss module: its configuration, torch optimizer, and what DeepSpeed has no setting for."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.zero.config import ZERO_OPTIMIZATION
from deepspeed.utils import groups
from torch import nn

from dstrain.cluster.process_group import Ranks
from dstrain.config.recipe import Training
from dstrain.config.schema import RunConfig
from dstrain.engine.ds_config import build_ds_config, effective_zero_stage
from dstrain.engine.engine import Engine
from dstrain.errors import UserError
from dstrain.models.load import DTYPES
from dstrain.models.loss import ProjectionLoss, Seq2SeqLoss


def build_engine(config: RunConfig, *, module: Seq2SeqLoss, ranks: Ranks, total_steps: int) -> Engine:
    """DeepSpeed around a loss module on the CPU. No device holds more of the model on the way than it does in training.

    Raises:
        UserError: the recipe asks for fp16, and DeepSpeed cannot train in fp16 on this device.
    """
    check_device_precision(config)
    _skip_shared_memory_build()
    _share_timeout(ranks)
    optimizer = build_optimizer(module, training=config.training)
    num_trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    settings = build_ds_config(config, world_size=ranks.world_size, num_trained=num_trained)
    if effective_zero_stage(config) == 3:
        # as a leaf, its weights are gathered once per micro-batch; ranks may need different numbers of chunks
        deepspeed.utils.set_z3_leaf_modules(module, [ProjectionLoss])
        _partition(module, settings=settings, dtype=DTYPES[config.precision], device=ranks.device)
    with _one_zero_optimizer():
        wrapped, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=settings, dist_init_required=False)
    assert wrapped.zero_optimization_stage() == effective_zero_stage(config)
    return Engine(wrapped, config=config, ranks=ranks, total_steps=total_steps)


def check_device_precision(config: RunConfig) -> None:
    """Check that this machine's device can train in the recipe's precision.

    Raises:
        UserError: it cannot train in fp16.
    """
    if config.precision == "fp16" and not get_accelerator().is_fp16_supported():
        name = get_accelerator().device_name()
        raise UserError(f"precision: DeepSpeed does not train fp16 on this device ({name}); override precision=fp32")


def build_optimizer(module: nn.Module, *, training: Training) -> torch.optim.Optimizer:
    """The torch optimizer of a recipe; biases and normalisation weights (one dimension) have no weight decay."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": parameters, "weight_decay": 0.0}]
    if training.weight_decay:
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": training.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]  # DeepSpeed takes no empty one
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=training.learning_rate, momentum=training.betas[0])
    kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    # fused reads and writes the state once; torch's default passes over it about ten times
    return kind(groups, lr=training.learning_rate, betas=training.betas, eps=training.epsilon, fused=True)


def _partition(module: nn.Module, *, settings: dict[str, Any], dtype: torch.dtype, device: torch.device) -> None:
    """Split the weights over the ranks for ZeRO-3, one after the other; DeepSpeed alone would move the whole model first."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)
    # before this, which `deepspeed.initialize` does too, DeepSpeed does not know of the other ranks
    deepspeed.init_distributed(get_accelerator().communication_backend_name(), dist_init_required=False)
    deepspeed.zero.Init(module=module, config_dict_or_path=settings, dtype=dtype)
    for buffer in module.buffers():
        buffer.data = buffer.data.to(device)


def _share_timeout(ranks: Ranks) -> None:
    # DeepSpeed would make its group of all ranks with torch's own time-out, 10 minutes with NCCL, whatever the default group has
    if ranks.world_size > 1 and groups._WORLD_GROUP is None:
        groups._WORLD_GROUP = torch.distributed.new_group(range(ranks.world_size), timeout=ranks.timeout)


@contextmanager
def _one_zero_optimizer() -> Iterator[None]:
    """For stage 1 in bf16 with gradients in fp32, use DeepSpeed's optimizer of all other stages and precisions.

    It can do both. DeepSpeed would choose an older one, whose state is laid out differently.
    """
    choose = DeepSpeedEngine._do_optimizer_sanity_check

    def choose_zero(wrapped: Any, optimizer: Any) -> Any:
        return ZERO_OPTIMIZATION if wrapped.zero_optimization() else choose(wrapped, optimizer)

    DeepSpeedEngine._do_optimizer_sanity_check = choose_zero
    try:
        yield
    finally:
        DeepSpeedEngine._do_optimizer_sanity_check = choose


def _skip_shared_memory_build() -> None:
    # On CPU DeepSpeed compiles a shared-memory collective on first use (84 s here), and fails without ninja. gloo is good
    # enough, and there is no setting to turn this off.
    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None  # type: ignore[attr-defined]
