"""One optimizer step on DeepSpeed, and full weights for evaluation and export. Knows nothing of hooks or files.

Loss and gradient are sums over the step's target tokens, divided once by their number over all ranks. DeepSpeed's mean over
ranks is undone by the world size, and its mean over micro-batches is switched off.
"""

import hashlib
import math
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import deepspeed
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dstrain.cluster.device_errors import SAVING_MEMORY, explained_memory
from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig
from dstrain.data.collate import MicroBatch
from dstrain.data.loader import StepBatch
from dstrain.data.vocabulary import IGNORED
from dstrain.engine.gradients import GradientWatch
from dstrain.engine.schedule import learning_rate_at
from dstrain.engine.shards import MOMENTS, compact_parameters, prime_optimizer, torch_optimizer
from dstrain.errors import UserError
from dstrain.models.compilation import eager_layers, explained_compilation
from dstrain.models.loss import Seq2SeqLoss
from dstrain.models.partial import plain_model

SCALER_COUNTERS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
"""State of DeepSpeed's DynamicLossScaler; its static scaler, which `machine.deepspeed` may select, has the first only."""


class TrainingFault(UserError):
    """Training cannot continue; the message says why, and what to do."""

    is_said_by_rank_0 = True


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a step was refused, the same on every rank. Weights, optimizer and loss scale are as before the step."""

    kind: Literal["loss", "gradient", "scale", "spike"]
    """`loss` and `gradient`: it is not finite; `scale`: the gradient overflows at fp16's smallest loss scale; `spike`: the
    loss is over the limit."""
    loss: float
    """Loss per target token over the whole step."""
    loss_scale: float = 1.0
    """fp16's loss scale in this step."""
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
                return f"the loss is {self.loss:.4g} per target token, over the limit of {self.loss_limit:.4g}"


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of one optimizer step on this rank. Tensors stay on the device until they are logged."""

    loss_sum: Tensor
    """Scalar float32: this rank's sum of token cross-entropies, before the step."""
    grad_norm: Tensor | float
    """Norm of the whole gradient before clipping, over all ranks."""
    learning_rate: float
    applied: bool
    """False when fp16 overflowed and the step was skipped, or when it was refused."""
    fault: Fault | None = None
    """Why the step was refused; None also where fp16 skipped it to lower the loss scale."""
    mean_loss: float | None = None
    """Loss per target token over the whole step; None unless there was a loss limit or the step was not applied."""


class Engine:
    """A DeepSpeed engine around the loss module of a model."""

    def __init__(self, wrapped: Any, *, config: RunConfig, ranks: Ranks, total_steps: int) -> None:
        self.wrapped = wrapped
        self.moments = MOMENTS[config.training.optimizer]
        self._config = config
        self._ranks = ranks
        self._total_steps = total_steps
        # without layers that a step may skip, every trained parameter must get a gradient in the first one
        is_watched = config.model.trains_part and not config.model.layerdrop
        self._watch = GradientWatch(self.module) if is_watched else None
        prime_optimizer(wrapped, moments=self.moments)
        scaler = getattr(wrapped.optimizer, "loss_scaler", None)
        if scaler is not None and hasattr(scaler, "raise_error_at_min_scale"):
            # DeepSpeed would raise in the middle of its step and leave the bad gradients behind; `_find_fault` checks instead
            scaler.raise_error_at_min_scale = False

    @property
    def module(self) -> Seq2SeqLoss:
        """The loss module, with the model as its attribute `model`."""
        module: Seq2SeqLoss = self.wrapped.module
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

    @property
    def trained_rows(self) -> Mapping[str, tuple[int, ...]]:
        """The ascending rows that are trained of a parameter of which not all are, by its name."""
        return {name: compact.ids for name, compact in compact_parameters(self.module).items()}

    def loss_scaler_state(self) -> dict[str, Any]:
        """State of fp16's loss scaler; empty in other precisions."""
        if self._config.precision != "fp16":
            return {}
        scaler = self.wrapped.optimizer.loss_scaler
        return {name: getattr(scaler, name) for name in SCALER_COUNTERS if hasattr(scaler, name)}

    def restore_counters(self, *, loss_scaler: Mapping[str, Any], skipped_steps: int) -> None:
        """Restore loss scaler and skipped steps to saved values; a scaler of another precision is left out."""
        for name in self.loss_scaler_state().keys() & loss_scaler.keys():
            setattr(self.wrapped.optimizer.loss_scaler, name, loss_scaler[name])
        self.wrapped.skipped_steps = skipped_steps

    def step(self, batch: StepBatch, *, step: int, loss_limit: float | None = None) -> StepResult:
        """Forward, backward and update over this rank's micro-batches of optimizer step `step`, counted from 1.

        A step is refused if its loss or gradient is not finite, if fp16 overflows at the smallest loss scale, or if its loss
        per target token is over `loss_limit`. The result then has a `fault`, and the engine is as before the step. A
        limit costs a host-device synchronisation; None is no limit.

        Raises:
            UserError: layers cannot be compiled (`machine.compile`).
        """
        loss_scaler, skipped_steps = self.loss_scaler_state(), self.skipped_steps
        loss_scale = self.loss_scale
        rate = learning_rate_at(step, training=self._config.training, total_steps=self._total_steps)
        for group in torch_optimizer(self.wrapped).param_groups:
            group["lr"] = rate
        with explained_compilation():
            loss_sum, mean_loss = self._accumulate(batch, step=step, loss_limit=loss_limit)
        self._check_gradients()
        grad_norm, applied = self._update()
        fault = None
        if not applied:  # rare, so that its synchronisation does not matter
            mean_loss = self._mean_loss(loss_sum, batch=batch)
            fault = self._find_fault(mean_loss, loss_limit=loss_limit, loss_scale=loss_scale)
        if fault is not None:  # DeepSpeed has counted the refused step as an overflow
            self.restore_counters(loss_scaler=loss_scaler, skipped_steps=skipped_steps)
        return StepResult(loss_sum, grad_norm, rate, applied, fault, mean_loss)

    @contextmanager
    def gathered(self, *, fill: Callable[[Seq2SeqLoss], None] | None = None) -> Iterator[PreTrainedModel]:
        """The model with its full weights on every rank, in evaluation mode and eager; no collective operation inside.

        `fill` may put other weights into the loss module first, after which the engine must not be trained on.

        It is an ordinary model of its class, whatever part of it is trained.

        Under ZeRO-3 the weights are gathered once for the whole block: that is faster than gathering for every generated
        token, and ranks may do different amounts of work.
        """
        model = self.module.model
        self.module.eval()
        if self.zero_stage == 3:
            self._invalidate_module_order()
        gathered = _gather(model) if self.zero_stage == 3 else nullcontext()
        with eager_layers(), torch.no_grad(), gathered:
            if fill is not None:
                fill(self.module)
            with plain_model(model):
                yield model

    def _invalidate_module_order(self) -> None:
        """Make DeepSpeed record the order of modules again, on all ranks.

        Otherwise a rank with batches to evaluate records another order than a rank without. At the next step it would compare
        the two in a collective call, while the other ranks wait in a different one.
        """
        coordinator = self.wrapped.optimizer.parameter_offload.get_param_coordinator()
        if not coordinator.is_invalid_trace():
            coordinator._invalidate_trace()

    def _accumulate(self, batch: StepBatch, *, step: int, loss_limit: float | None) -> tuple[Tensor, float | None]:
        """Leaves the step's gradient in DeepSpeed; returns this rank's loss sum, and the mean loss if there is a limit."""
        loss_sum = torch.zeros((), dtype=torch.float32, device=self._ranks.device)
        mean_loss = None
        self.module.train()
        # DeepSpeed averages gradients over ranks; times world size they are sums, and over all target tokens their mean
        scale = self._ranks.world_size / batch.target_tokens
        last = len(batch.micro_batches) - 1
        for number, micro_batch in enumerate(batch.micro_batches):
            with explained_memory(partial(self._describe, micro_batch, step=step)):
                loss = self._forward(micro_batch, step=step, is_last=number == last)
                loss_sum += loss.detach()
                scaled = loss * scale
                if number == last:
                    mean_loss = None if loss_limit is None else self._mean_loss(loss_sum, batch=batch)
                    scaled = _poison_if_bad(scaled, loss_sum=loss_sum, mean_loss=mean_loss, loss_limit=loss_limit)
                self.wrapped.backward(scaled, scale_wrt_gas=False)
        return loss_sum, mean_loss

    def _describe(self, batch: MicroBatch, *, step: int) -> str:
        """Which micro-batch did not fit into memory, and what to change."""
        num_rows, num_source = batch.source_ids.shape
        return (
            f"in step {step}: a micro-batch of {num_rows} rows, each {num_source} source and {batch.labels.shape[1]} target "
            f"positions long, did not fit. Lower machine.micro_batch_tokens, now {self._config.machine.micro_batch_tokens} (in a "
            f"run that has checkpoints add --allow-changed machine.micro_batch_tokens), or {SAVING_MEMORY}"
        )

    def _forward(self, host_batch: MicroBatch, *, step: int, is_last: bool) -> Tensor:
        """The loss sum of a micro-batch; 0 for a filler."""
        num_positions = int((host_batch.labels != IGNORED).sum())  # on the host, where it costs no synchronisation
        micro_batch = host_batch.to(self._ranks.device)
        torch.manual_seed(micro_batch_seed(self._config.seed, step=step, index=micro_batch.index))
        # the boundary ends the step: DeepSpeed then finishes reducing, and lets the gradient be applied
        self.wrapped.set_gradient_accumulation_boundary(is_last)
        loss: Tensor = self.wrapped(
            micro_batch.source_ids,
            micro_batch.source_mask,
            micro_batch.decoder_ids,
            micro_batch.labels,
            num_positions,
        )
        return loss * micro_batch.weight

    def _check_gradients(self) -> None:
        """In the first step: raise TrainingFault if a trained parameter has no gradient on any rank; a collective call."""
        if self._watch is None:
            return
        (watch, self._watch) = self._watch, None
        missing = watch.end(self._ranks)
        if missing:
            raise TrainingFault(
                f"trained parameters have no gradient in the first step, {len(missing)} in all, `{missing[0]}` first: the loss "
                "does not depend on them, so that training would count and save them for nothing: freeze them (model.freeze)"
            )

    def _update(self) -> tuple[Tensor | float, bool]:
        """The gradient's norm before clipping, and whether the step was applied."""
        if self.zero_stage > 0:
            self.wrapped.step()
            return self.wrapped.get_global_grad_norm(), bool(self.wrapped.was_step_applied())
        # Stage 0 is a plain torch optimizer, which would apply any gradient. The check costs a synchronisation, as it does
        # inside DeepSpeed's other stages. Gradients are reduced by now, so that the local norm is the global one.
        grad_norm = total_norm(parameter.grad for parameter in self.module.parameters())
        applied = bool(grad_norm.isfinite())
        if applied:
            self.wrapped.step()
        else:
            self.wrapped.zero_grad()
        return grad_norm, applied

    def _find_fault(self, mean_loss: float, *, loss_limit: float | None, loss_scale: float | None) -> Fault | None:
        """Why a step was not applied; None if fp16 only needs a smaller loss scale."""
        limit = math.inf if loss_limit is None else loss_limit
        fault = partial(Fault, loss=mean_loss, loss_scale=loss_scale or 1.0, loss_limit=limit)
        if not math.isfinite(mean_loss):
            return fault("loss")  # in fp16 too: a smaller loss scale does not change the loss
        if mean_loss > limit:
            return fault("spike")
        if loss_scale is None:
            return fault("gradient")
        # a static loss scale has no minimum: with one, overflowing steps are always skipped
        return fault("scale") if loss_scale <= getattr(self.wrapped.optimizer.loss_scaler, "min_scale", 0.0) else None

    def _mean_loss(self, loss_sum: Tensor, *, batch: StepBatch) -> float:
        return self._ranks.sum([float(loss_sum)])[0] / batch.target_tokens


def micro_batch_seed(seed: int, *, step: int, index: int) -> int:
    """Seed of one micro-batch's random numbers, so that dropout is the same on whichever rank computes it."""
    digest = hashlib.blake2b(f"{seed}/{step}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1  # torch takes 63 bits


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory so far in MB: of the GPU's allocator if there is a GPU, else of the process (resident set)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def total_norm(gradients: Iterable[Tensor | None]) -> Tensor:
    """The norm of all gradients together, computed in fp32 as in DeepSpeed: squares of fp16 overflow early."""
    norms = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in gradients if g is not None]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm


def _poison_if_bad(scaled: Tensor, *, loss_sum: Tensor, mean_loss: float | None, loss_limit: float | None) -> Tensor:
    """The scaled loss, or NaN if the step must be refused: its loss is not finite or over the limit.

    A NaN in the gradient of any rank makes every ZeRO stage drop the step on all ranks, without a collective of our own.
    Infinite or undefined losses need this, because their gradient may be finite: 0 x loss_sum is 0 for a finite loss and NaN
    for any other, and is computed on the device without synchronisation.
    """
    scaled = scaled * (1.0 + 0.0 * loss_sum)
    if mean_loss is not None and loss_limit is not None and mean_loss > loss_limit:
        scaled = scaled * math.nan
    return scaled


@contextmanager
def _gather(model: nn.Module) -> Iterator[None]:
    parameters = list(model.parameters())
    with deepspeed.zero.GatheredParameters(parameters):
        # GatheredParameters alone is not enough: after each module's forward DeepSpeed releases its weights again, unless
        # another module is registered as using them
        for parameter in parameters:
            parameter.ds_active_sub_modules.add(_gather)  # type: ignore[attr-defined]
        try:
            yield
        finally:
            for parameter in parameters:
                parameter.ds_active_sub_modules.discard(_gather)  # type: ignore[attr-defined]
