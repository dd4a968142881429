"""Cross-entropy of a vocabulary projection that never holds all logits in memory. Works on tensors; knows no model.

Positions are processed in chunks. The forward pass computes a chunk's logits, its loss and its contribution to the
gradients, then reuses its buffer for the next chunk. The backward pass only scales the gradients, so that nothing is computed
twice and the weight is not needed again.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

MAX_LOGITS = {"cpu": 2**25, "cuda": 2**28}
"""Device to the number of logits in memory at a time: 128 MiB and 1 GiB in fp32, and half as much again for a 16-bit weight.

Measured on a CPU (mT5-small, 16 x 64 positions, relative to the stock loss): 2**25 needs 0.21 of the memory; 2**26 needs 0.25
and is 4 % faster; 2**24 needs 0.19 and is 8 % slower. Calculated for a GPU: each chunk reads and writes the gradient of the
whole weight, 4 ms for mT5-small with 2**26 and 1 ms with 2**28.
"""

FP16_SCALE = 2.0**15
"""Factor on the gradients of logits (within ±1) in fp16, where small probabilities would lose precision or become zero."""


def projected_cross_entropy(
    states: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    bias: Tensor | None = None,
    cap: float | None = None,
    label_smoothing: float = 0.0,
    max_logits: int | None = None,
) -> Tensor:
    """The sum over positions of `cross_entropy(states @ weight.T + bias, labels)`, a scalar.

    With a cap c, the logits are `c * tanh(logit / c)` instead.

    states: `[positions, hidden]`; weight: `[vocabulary, hidden]`; labels: `[positions]`, none ignored; bias: a buffer of
    `[vocabulary]` or `[1, vocabulary]`. Logits, loss and the sums in the gradients are fp32 for 16-bit weights (fp64 for
    fp64), because a sum of exponentials over a vocabulary loses too much in 16 bits. If autograd is recording, gradients are
    computed with the loss, and only one backward pass is possible.
    """
    assert bias is None or not bias.requires_grad
    max_logits = max_logits or MAX_LOGITS.get(weight.device.type, MAX_LOGITS["cuda"])
    if torch.is_grad_enabled():
        loss: Tensor = _Projection.apply(states, weight, labels, bias, cap, label_smoothing, max_logits)  # type: ignore[no-untyped-call]
        return loss
    return _forward(states, weight, labels, bias, cap, label_smoothing, max_logits, wanted=(False, False))[0]


class _Projection(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        labels: Tensor,
        bias: Tensor | None,
        cap: float | None,
        label_smoothing: float,
        max_logits: int,
    ) -> Tensor:
        ctx.dtypes = states.dtype, weight.dtype
        wanted = ctx.needs_input_grad[:2]
        loss, *ctx.gradients = _forward(states, weight, labels, bias, cap, label_smoothing, max_logits, wanted=wanted)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        assert ctx.gradients is not None, "this loss can be differentiated once"
        of_states, of_weight = (
            # scaled before the cast, because the loss scale is there to fit gradients into fp16
            None if gradient is None else gradient.mul_(scale).to(dtype)
            for gradient, dtype in zip(ctx.gradients, ctx.dtypes, strict=True)
        )
        ctx.gradients = None
        return of_states, of_weight, None, None, None, None, None


def _forward(
    states: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None,
    cap: float | None,
    label_smoothing: float,
    max_logits: int,
    *,
    wanted: tuple[bool, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss, and its gradients with respect to (states, weight) where `wanted`."""
    exact = torch.promote_types(weight.dtype, torch.float32)
    if not weight.is_cuda:
        # only CUDA sums 16-bit products in fp32; on other devices they are also slower than fp32 products
        states, weight = states.to(exact), weight.to(exact)
    num_chunks = max(1, math.ceil(states.shape[0] * weight.shape[0] / max_logits))
    num_rows = max(1, math.ceil(states.shape[0] / num_chunks))
    buffer = torch.empty((num_rows, weight.shape[0]), dtype=exact, device=weight.device)
    loss = torch.zeros((), dtype=exact, device=weight.device)
    of_states = torch.empty_like(states, dtype=exact) if wanted[0] else None
    of_weight = torch.empty_like(weight, dtype=exact) if wanted[1] else None
    scale = FP16_SCALE if weight.dtype == torch.float16 else 1.0
    for start in range(0, max(1, states.shape[0]), num_rows):
        chunk, targets = states[start : start + num_rows], labels[start : start + num_rows]
        logits = _multiply(chunk, weight.t(), into=buffer[: chunk.shape[0]])
        if bias is not None:
            logits += bias
        slope = None if cap is None else _bound(logits, cap=cap)
        of_chunk, sums = _cross_entropy(logits, targets, label_smoothing=label_smoothing)
        loss += of_chunk
        if not any(wanted):
            continue
        _differentiate(logits, targets, sums=sums, label_smoothing=label_smoothing)
        if slope is not None:
            logits *= slope
        gradient = logits if weight.dtype == exact else logits.mul_(scale).to(weight.dtype)
        if of_states is not None:
            _multiply(gradient, weight, into=of_states[start : start + num_rows], alpha=1 / scale)
        if of_weight is not None:
            _multiply(gradient.t(), chunk, into=of_weight, alpha=1 / scale, beta=float(start > 0))
    return loss, of_states, of_weight


def _bound(logits: Tensor, *, cap: float) -> Tensor:
    """Cap the logits in place; returns the derivatives of the new ones with respect to the old."""
    bounded = logits.div_(cap).tanh_()
    slope = 1.0 - bounded.square()
    logits.mul_(cap)
    return slope


def _cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float) -> tuple[Tensor, Tensor]:
    """The sum of the rows' losses. The logits become `exp(logit - largest)`, whose sums `[rows, 1]` are returned too."""
    logits -= logits.amax(dim=1, keepdim=True)
    right = logits.gather(1, labels[:, None]).sum()
    mean = logits.mean(dim=1).sum() if label_smoothing else right
    sums = logits.exp_().sum(dim=1, keepdim=True)
    return sums.log().sum() - (1.0 - label_smoothing) * right - label_smoothing * mean, sums


def _differentiate(exponentials: Tensor, labels: Tensor, *, sums: Tensor, label_smoothing: float) -> None:
    """Replace the exponentials and sums that `_cross_entropy` left by the loss's gradient with respect to the logits."""
    exponentials /= sums
    if label_smoothing:
        exponentials -= label_smoothing / exponentials.shape[1]
    right = torch.full_like(labels, label_smoothing - 1.0, dtype=exponentials.dtype)
    exponentials.scatter_add_(1, labels[:, None], right[:, None])


def _multiply(one: Tensor, other: Tensor, *, into: Tensor, alpha: float = 1.0, beta: float = 0.0) -> Tensor:
    """`into = beta * into + alpha * one @ other`, in place; with beta 0 the old content is ignored. Returns `into`."""
    if one.dtype == into.dtype:
        return torch.addmm(into, one, other, beta=beta, alpha=alpha, out=into)
    return torch.addmm(into, one, other, out_dtype=into.dtype, beta=beta, alpha=alpha, out=into)
