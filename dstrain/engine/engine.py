"""One optimizer step on DeepSpeed, and the weights gathered whole for evaluation and export. Knows no hooks and no files.

Loss and gradient are sums over the step's target tokens, divided once by their number over all ranks: DeepSpeed's mean over
ranks is undone by the world size, and its mean over micro-batches is switched off.
"""

import hashlib
import importlib
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from torch import Tensor, nn

from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig, Training
from dstrain.data.loader import StepBatch
from dstrain.engine.ds_config import build_ds_config, effective_zero_stage
from dstrain.engine.pieces import MOMENTS, prime_optimizer, torch_optimizer
from dstrain.engine.schedule import learning_rate_at
from dstrain.models.loss import ProjectionLoss

SCALER_COUNTERS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""What DeepSpeed's DynamicLossScaler changes as it runs; its static scaler, which the user may ask for, has the first."""


class TrainingFault(RuntimeError):
    """Training cannot go on; the message says why and the way out."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step gave on this rank. Tensors stay on the device until somebody logs them."""

    loss_sum: Tensor
    """Scalar float32: this rank's sum of token cross-entropies, before the step."""
    grad_norm: Tensor | float
    """Norm of the whole gradient before clipping, over all ranks."""
    learning_rate: float
    applied: bool
    """False when fp16 overflowed and the step was skipped."""


class Engine:
    """A DeepSpeed engine under a module that maps a micro-batch to the sum of its token losses."""

    def __init__(self, wrapped: Any, *, config: RunConfig, ranks: Ranks, total_steps: int) -> None:
        self.wrapped = wrapped
        self.moments = MOMENTS[config.training.optimizer]
        self._config = config
        self._ranks = ranks
        self._total_steps = total_steps
        prime_optimizer(wrapped, moments=self.moments)

    @property
    def module(self) -> nn.Module:
        """The loss module, with the model as its attribute `model`."""
        module = self.wrapped.module
        assert isinstance(module, nn.Module)
        return module

    @property
    def zero_stage(self) -> int:
        return int(self.wrapped.zero_optimization_stage())

    @property
    def loss_scale(self) -> float | None:
        """The fp16 loss scale, None in other precisions."""
        return float(self.wrapped.optimizer.loss_scale) if self._config.precision == "fp16" else None

    @property
    def skipped_steps(self) -> int:
        """Steps of the run that fp16 skipped."""
        return int(self.wrapped.skipped_steps)

    def loss_scaler_state(self) -> dict[str, Any]:
        """Counters of fp16's dynamic loss scale; empty in other precisions."""
        if self._config.precision != "fp16":
            return {}
        scaler = self.wrapped.optimizer.loss_scaler
        return {name: getattr(scaler, name) for name in SCALER_COUNTERS if hasattr(scaler, name)}

    def restore_counters(self, *, loss_scaler: Mapping[str, Any], skipped_steps: int) -> None:
        """Take up the counters of the process that saved them."""
        for name, value in loss_scaler.items():
            setattr(self.wrapped.optimizer.loss_scaler, name, value)
        self.wrapped.skipped_steps = skipped_steps

    def step(self, batch: StepBatch, *, step: int) -> StepResult:
        """Forward, backward and update over this rank's micro-batches of optimizer step `step`, counted from 1.

        Raises:
            TrainingFault: fp16 overflowed at the smallest loss scale.
        """
        rate = learning_rate_at(step, training=self._config.training, total_steps=self._total_steps)
        for group in torch_optimizer(self.wrapped).param_groups:
            group["lr"] = rate
        loss_sum = torch.zeros((), dtype=torch.float32, device=self._ranks.device)
        self.module.train()
        last = len(batch.micro_batches) - 1
        scale = self._ranks.world_size / batch.num_target_tokens
        for number, host_batch in enumerate(batch.micro_batches):
            num_positions = int((host_batch.labels != -100).sum())  # counted on the host: the device is not asked
            micro_batch = host_batch.to(self._ranks.device)
            torch.manual_seed(micro_batch_seed(self._config.seed, step=step, index=micro_batch.index))
            self.wrapped.set_gradient_accumulation_boundary(number == last)
            loss = self.wrapped(
                micro_batch.source_ids,
                micro_batch.source_mask,
                micro_batch.decoder_ids,
                micro_batch.labels,
                num_positions,
            )
            weighted = loss * micro_batch.weight
            loss_sum += weighted.detach()
            self.wrapped.backward(weighted * scale, scale_wrt_gas=False)
        grad_norm = self._unwrapped_grad_norm() if self.zero_stage == 0 else None
        self._update()
        if grad_norm is None:
            grad_norm = self.wrapped.get_global_grad_norm()
        return StepResult(loss_sum, grad_norm, rate, bool(self.wrapped.was_step_applied()))

    @contextmanager
    def gathered(self) -> Iterator[nn.Module]:
        """The model with whole weights on every rank, in evaluation mode, without any collective inside.

        Under ZeRO-3 the weights are gathered once for the whole block: faster than gathering for every generated token, and
        ranks may do different amounts of work.
        """
        model = self.module.model
        assert isinstance(model, nn.Module)
        self.module.eval()
        with torch.no_grad(), _gather(model) if self.zero_stage == 3 else nullcontext():
            yield model

    def _update(self) -> None:
        try:
            self.wrapped.step()
        except Exception as error:
            if "loss scale already at minimum" not in str(error):
                raise
            raise TrainingFault(
                "fp16: gradients overflow even at the smallest loss scale, so no step can be applied. Set precision to bf16 "
                "or fp32, or lower training.learning_rate, and start again: the run goes on from its last checkpoint"
            ) from error

    def _unwrapped_grad_norm(self) -> Tensor:
        # DeepSpeed reports no norm on stage 0; its gradients are reduced by now, so the local norm is the global one
        gradients = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
        return nn.utils.get_total_norm(gradients)


def build_engine(config: RunConfig, *, module: nn.Module, ranks: Ranks, total_steps: int) -> Engine:
    """DeepSpeed around a loss module.

    Raises:
        ValueError: fp16 on a device that DeepSpeed does not train in fp16.
    """
    check_device_precision(config)
    _skip_shared_memory_build()
    if effective_zero_stage(config) == 3:
        # its weights are gathered once a micro-batch, however many chunks a rank's positions need
        deepspeed.utils.set_z3_leaf_modules(module, [ProjectionLoss])
    optimizer = build_optimizer(module, training=config.training)
    wrapped, *_ = deepspeed.initialize(
        model=module,
        optimizer=optimizer,
        config=build_ds_config(config, world_size=ranks.world_size),
        dist_init_required=False,
    )
    assert wrapped.zero_optimization_stage() == effective_zero_stage(config)
    return Engine(wrapped, config=config, ranks=ranks, total_steps=total_steps)


def check_device_precision(config: RunConfig) -> None:
    """Refuse a precision that this machine's device cannot train in.

    Raises:
        ValueError: fp16 on such a device.
    """
    if config.precision == "fp16" and not get_accelerator().is_fp16_supported():
        name = get_accelerator().device_name()
        raise ValueError(f"precision: DeepSpeed does not train fp16 on this device ({name}); override precision=fp32")


def build_optimizer(module: nn.Module, *, training: Training) -> torch.optim.Optimizer:
    """The torch optimizer of a recipe; biases and normalisation weights (one dimension) are not decayed."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": parameters, "weight_decay": 0.0}]
    if training.weight_decay:
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": training.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=training.learning_rate, momentum=training.betas[0])
    kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=training.learning_rate, betas=training.betas, eps=training.epsilon)


def micro_batch_seed(seed: int, *, step: int, index: int) -> int:
    """Seed of one micro-batch's random numbers: dropout is the same whichever rank computes it."""
    digest = hashlib.blake2b(f"{seed}/{step}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1  # torch takes 63 bits


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory held so far, in MB: the GPU's allocator where there is one, else the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


@contextmanager
def _gather(model: nn.Module) -> Iterator[None]:
    parameters = list(model.parameters())
    with deepspeed.zero.GatheredParameters(parameters):
        # GatheredParameters alone does not hold: after every module's forward DeepSpeed shards its weights again,
        # unless somebody else still uses them
        for parameter in parameters:
            parameter.ds_active_sub_modules.add(_gather)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            for parameter in parameters:
                parameter.ds_active_sub_modules.discard(_gather)  # type: ignore[attr-defined]


def _skip_shared_memory_build() -> None:
    # On CPU DeepSpeed compiles a shared-memory collective at every first start (84 s here), and fails without ninja;
    # gloo serves. There is no setting for it.
    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None  # type: ignore[attr-defined]
