"""One optimizer step on DeepSpeed, and the weights gathered whole for evaluation and export. Knows no hooks and no files.

Loss and gradient are sums over the step's target tokens, divided once by their number over all ranks: DeepSpeed's mean over
ranks is undone by the world size, and its mean over micro-batches is switched off.
"""

import hashlib
import importlib
import math
import resource
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import deepspeed
import torch
from deepspeed.accelerator import get_accelerator
from torch import Tensor, nn

from dstrain.cluster.process_group import Ranks
from dstrain.config.recipe import Training
from dstrain.config.schema import RunConfig
from dstrain.data.loader import StepBatch
from dstrain.engine.ds_config import build_ds_config, effective_zero_stage
from dstrain.engine.pieces import MOMENTS, prime_optimizer, torch_optimizer
from dstrain.engine.schedule import learning_rate_at
from dstrain.errors import UserError
from dstrain.models.compilation import eager_layers, explained_compilation
from dstrain.models.loss import ProjectionLoss

SCALER_COUNTERS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""What DeepSpeed's DynamicLossScaler changes as it runs; its static scaler, which the user may ask for, has the first."""


class TrainingFault(UserError):
    """Training cannot continue; the message says why and the way out."""

    is_said_by_rank_0 = True


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a step was refused, the same on every rank. Weights, optimizer and loss scale are those before the step."""

    kind: Literal["loss", "gradient", "scale", "spike"]
    """A loss that is not finite; a gradient that is not; one that overflows at the smallest fp16 loss scale; a loss over
    the limit."""
    loss: float
    """Loss of a target token over the whole step."""
    loss_scale: float = 1.0
    """fp16's in this step."""
    loss_limit: float = math.inf
    """The largest loss that would have been applied."""

    def __str__(self) -> str:
        match self.kind:
            case "loss":
                return f"the loss is {self.loss}"
            case "gradient":
                return f"the gradient is not finite (the loss is {self.loss:.4g})"
            case "scale":
                return f"fp16: the gradient overflows even at the smallest loss scale, {self.loss_scale:g}"
            case "spike":
                return f"the loss is {self.loss:.4g} a target token, over the limit of {self.loss_limit:.4g}"


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step gave on this rank. Tensors stay on the device until somebody logs them."""

    loss_sum: Tensor
    """Scalar float32: this rank's sum of token cross-entropies, before the step."""
    grad_norm: Tensor | float
    """Norm of the whole gradient before clipping, over all ranks."""
    learning_rate: float
    applied: bool
    """False when fp16 overflowed and the step was skipped, or when it was refused."""
    fault: Fault | None = None
    """Why the step was refused; None too where fp16 skipped it in the ordinary way."""
    mean_loss: float | None = None
    """Loss of a target token over the whole step; known only where training.spike_factor asks for it."""


class Engine:
    """A DeepSpeed engine under a module that maps a micro-batch to the sum of its token losses."""

    def __init__(self, wrapped: Any, *, config: RunConfig, ranks: Ranks, total_steps: int) -> None:
        self.wrapped = wrapped
        self.moments = MOMENTS[config.training.optimizer]
        self._config = config
        self._ranks = ranks
        self._total_steps = total_steps
        prime_optimizer(wrapped, moments=self.moments)
        scaler = getattr(wrapped.optimizer, "loss_scaler", None)
        if scaler is not None and hasattr(scaler, "raise_error_at_min_scale"):
            # DeepSpeed would raise half-way through its step and leave the bad gradients behind; this class looks itself
            scaler.raise_error_at_min_scale = False

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

    def step(self, batch: StepBatch, *, step: int, loss_limit: float | None = None) -> StepResult:
        """Forward, backward and update over this rank's micro-batches of optimizer step `step`, counted from 1.

        A step is refused, with a `fault` and without any trace, if its loss or gradient is not finite, if fp16 overflows at
        the smallest loss scale, or if its loss a target token is over `loss_limit`. None asks for no limit; any number
        costs a host-device synchronisation.

        Raises:
            UserError: layers that should be compiled cannot be.
        """
        loss_scaler, skipped_steps = self.loss_scaler_state(), self.skipped_steps
        loss_scale = self.loss_scale
        rate = learning_rate_at(step, training=self._config.training, total_steps=self._total_steps)
        for group in torch_optimizer(self.wrapped).param_groups:
            group["lr"] = rate
        with explained_compilation():
            loss_sum, mean_loss = self._accumulate(batch, step=step, loss_limit=loss_limit)
        grad_norm, applied = self._update()
        fault = None
        if not applied:
            mean_loss = self._mean_loss(loss_sum, batch=batch)
            fault = self._judge(mean_loss, loss_limit=loss_limit, loss_scale=loss_scale)
        if fault is not None:
            self.restore_counters(loss_scaler=loss_scaler, skipped_steps=skipped_steps)
        return StepResult(loss_sum, grad_norm, rate, applied, fault, mean_loss)

    @contextmanager
    def gathered(self) -> Iterator[nn.Module]:
        """The model with whole weights on every rank, in evaluation mode and eager, without any collective inside.

        Under ZeRO-3 the weights are gathered once for the whole block: faster than gathering for every generated token, and
        ranks may do different amounts of work.
        """
        model = self.module.model
        assert isinstance(model, nn.Module)
        self.module.eval()
        if self.zero_stage == 3:
            self._forget_order()
        with eager_layers(), torch.no_grad(), _gather(model) if self.zero_stage == 3 else nullcontext():
            yield model

    def _forget_order(self) -> None:
        """Have DeepSpeed note the order of modules anew, on all ranks.

        Else a rank that has batches to evaluate notes another order than one that has none, and compares it with the others'
        at its next step, where these wait in another collective call.
        """
        coordinator = self.wrapped.optimizer.parameter_offload.get_param_coordinator()
        if not coordinator.is_invalid_trace():
            coordinator._invalidate_trace()

    def _accumulate(self, batch: StepBatch, *, step: int, loss_limit: float | None) -> tuple[Tensor, float | None]:
        """Leaves the step's gradient in DeepSpeed; gives this rank's loss sum, and the mean loss if there is a limit."""
        loss_sum = torch.zeros((), dtype=torch.float32, device=self._ranks.device)
        mean_loss = None
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
            scaled = weighted * scale
            if number == last:
                # A gradient of NaN is the one thing that makes every stage drop a step, on all ranks alike. A loss that is
                # not finite may have a finite gradient; multiplied by this it has none, and nobody need ask the device.
                scaled = scaled * (1.0 + 0.0 * loss_sum)
                if loss_limit is not None:
                    mean_loss = self._mean_loss(loss_sum, batch=batch)
                    scaled = scaled * (math.nan if mean_loss > loss_limit else 1.0)
            self.wrapped.backward(scaled, scale_wrt_gas=False)
        return loss_sum, mean_loss

    def _update(self) -> tuple[Tensor | float, bool]:
        """The gradient's norm before clipping, and whether the step was applied."""
        if self.zero_stage > 0:
            self.wrapped.step()
            return self.wrapped.get_global_grad_norm(), bool(self.wrapped.was_step_applied())
        # A plain torch optimizer applies whatever it is given. Asking costs a synchronisation, as it does inside DeepSpeed's
        # own stages. DeepSpeed reports no norm here; gradients are reduced by now, so the local norm is the global one.
        grad_norm = total_norm(parameter.grad for parameter in self.module.parameters())
        applied = bool(grad_norm.isfinite())
        if applied:
            self.wrapped.step()
        else:
            self.wrapped.zero_grad()
        return grad_norm, applied

    def _judge(self, mean_loss: float, *, loss_limit: float | None, loss_scale: float | None) -> Fault | None:
        """What is wrong with a step that was not applied; None where fp16 only needs a smaller loss scale."""
        limit = math.inf if loss_limit is None else loss_limit
        fault = partial(Fault, loss=mean_loss, loss_scale=loss_scale or 1.0, loss_limit=limit)
        if not math.isfinite(mean_loss):
            return fault("loss")  # in fp16 too: no loss scale changes the loss
        if mean_loss > limit:
            return fault("spike")
        if loss_scale is None:
            return fault("gradient")
        # a static scale has no smallest: whoever sets one has chosen to skip
        return fault("scale") if loss_scale <= getattr(self.wrapped.optimizer.loss_scaler, "min_scale", 0.0) else None

    def _mean_loss(self, loss_sum: Tensor, *, batch: StepBatch) -> float:
        return self._ranks.sum([float(loss_sum)])[0] / batch.num_target_tokens


def build_engine(config: RunConfig, *, module: nn.Module, ranks: Ranks, total_steps: int) -> Engine:
    """DeepSpeed around a loss module.

    Raises:
        UserError: fp16 on a device that DeepSpeed does not train in fp16.
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
        UserError: fp16 on such a device.
    """
    if config.precision == "fp16" and not get_accelerator().is_fp16_supported():
        name = get_accelerator().device_name()
        raise UserError(f"precision: DeepSpeed does not train fp16 on this device ({name}); override precision=fp32")


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
    # fused: the state is read and written once, where torch's default goes over it some ten times
    return kind(groups, lr=training.learning_rate, betas=training.betas, eps=training.epsilon, fused=True)


def micro_batch_seed(seed: int, *, step: int, index: int) -> int:
    """Seed of one micro-batch's random numbers: dropout is the same whichever rank computes it."""
    digest = hashlib.blake2b(f"{seed}/{step}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1  # torch takes 63 bits


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory held so far, in MB: the GPU's allocator where there is one, else the process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def total_norm(gradients: Iterable[Tensor | None]) -> Tensor:
    """The norm of all gradients together, in fp32 as DeepSpeed takes it: squares of fp16 overflow early."""
    norms = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in gradients if g is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm


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
