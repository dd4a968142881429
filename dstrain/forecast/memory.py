"""Bytes on one GPU by part, for each ZeRO stage. Pure; follows what DeepSpeed 0.19 and the engine of this project allocate.

`docs/running.md` says of each part where its bytes come from. The tests compare every part with the live tensors of real engines.
"""

import math
from dataclasses import dataclass

from dstrain.forecast.trained import Trained

FP32_BYTES = 4
STAGES = (0, 1, 2, 3)

PERSISTENT_ELEMENTS = 100_000
"""ZeRO-3 keeps parameters of at most so many elements whole on every rank; DeepSpeed's default."""
PREFETCHED_ELEMENTS = 50_000_000
"""Elements that ZeRO-3 gathers ahead of their use; DeepSpeed's default."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a run divides its model over the ranks."""

    stage: int
    world_size: int
    width: int
    """Bytes of an element in the recipe's precision: 4, or 2 in 16 bits."""
    num_moments: int
    """Tensors of optimizer state for each parameter."""
    bucket_elements: int
    """Elements of the buffer in which gradients are reduced (`reduce_bucket_size`)."""
    offloads_optimizer: bool = False
    offloads_parameters: bool = False
    accumulates: bool = True
    """Whether a rank has several micro-batches in a step."""
    persistent_elements: int = PERSISTENT_ELEMENTS
    prefetched_elements: int = PREFETCHED_ELEMENTS


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """Bytes on one GPU that do not depend on the data, and those that offloading keeps on its host."""

    weights: int
    optimizer: int
    gradients: int
    """While the last micro-batch of a step is differentiated."""
    buckets: int
    gather: int
    """ZeRO-3: weights of other ranks, gathered ahead of their use in training."""
    evaluation_gather: int
    """ZeRO-3: weights of other ranks in an evaluation, which gathers all."""
    keeps_gradients: bool
    """Whether gradients and buckets stay allocated between steps, in evaluations too."""
    host: int = 0
    """Bytes of a rank in the memory of its host, for what is offloaded."""

    @property
    def lower_bound(self) -> int:
        """What the model alone needs, whatever the data."""
        return self.weights + self.optimizer + self.gradients


def find_model_memory(trained: Trained, *, layout: Layout) -> ModelMemory:
    """The bytes of weights, optimizer, gradients and DeepSpeed's buffers on one GPU."""
    find = _whole if layout.stage == 0 else _sharded_weights if layout.stage == 3 else _sharded_optimizer
    return find(trained, layout)


def _whole(trained: Trained, layout: Layout) -> ModelMemory:
    """Stage 0, which runs in fp32 only: a plain optimizer on every rank."""
    num = trained.num_trained
    return ModelMemory(
        weights=layout.width * (trained.num_all + trained.num_buffers),
        optimizer=FP32_BYTES * layout.num_moments * num,
        gradients=FP32_BYTES * num + _in_flight(trained, layout),
        # gradients are flattened to be summed over the ranks
        buckets=FP32_BYTES * min(layout.bucket_elements, num),
        gather=0,
        evaluation_gather=0,
        keeps_gradients=False,
    )


def _in_flight(trained: Trained, layout: Layout) -> int:
    """The largest gradient when it has just been made, beside those that are summed up already."""
    is_added = layout.accumulates or layout.width < FP32_BYTES or layout.stage > 1
    return layout.width * trained.largest if is_added else 0


def _sharded_optimizer(trained: Trained, layout: Layout) -> ModelMemory:
    """Stages 1 and 2: every rank has the weights, and a part of the fp32 master weights and of the optimizer's state."""
    num, width = trained.num_trained, layout.width
    share = math.ceil(num / layout.world_size)
    optimizer = FP32_BYTES * (1 + layout.num_moments) * share
    in_flight = _in_flight(trained, layout)
    if layout.stage == 1:
        # every rank sums up all gradients, in 16 bits in a copy of their own; they are reduced at the end of a step
        gradients, bucket_width = FP32_BYTES * num, FP32_BYTES
    else:
        # a rank keeps its own part; in fp32 what a micro-batch adds lies beside the sum, once a bucket has been reduced
        is_copied = width == FP32_BYTES and layout.accumulates and num > layout.bucket_elements
        gradients, bucket_width = FP32_BYTES * share * (2 if is_copied else 1), width
    host = 0
    if layout.offloads_optimizer:
        # the parts in the host's memory: master weights, state and gradients in fp32, and the new weights before they are copied
        host = optimizer + (FP32_BYTES + width) * share
        optimizer = 0
        if layout.stage == 2:
            gradients = 0
        in_flight = width * 2 * trained.largest
    return ModelMemory(
        weights=width * (trained.num_all + trained.num_buffers),
        optimizer=optimizer,
        gradients=gradients + in_flight,
        buckets=bucket_width * layout.bucket_elements,
        gather=0,
        evaluation_gather=0,
        keeps_gradients=False,
        host=host,
    )


def _sharded_weights(trained: Trained, layout: Layout) -> ModelMemory:
    """Stage 3: every rank has a part of each parameter, and whole small ones."""
    width, world_size = layout.width, layout.world_size
    share = sum(math.ceil(weight.numel / world_size) for weight in trained.weights)
    trained_share = sum(math.ceil(weight.numel / world_size) for weight in trained.weights if weight.is_trained)
    small = sum(weight.numel for weight in trained.weights if weight.numel <= layout.persistent_elements)
    large = trained.num_all - small
    if world_size == 1:  # training has nothing to gather, because a part is the whole
        small = 0
    # in fp32 the parts of the weights are the master weights
    masters = 1 if width < FP32_BYTES else 0
    optimizer = FP32_BYTES * (masters + layout.num_moments) * trained_share
    gradients = FP32_BYTES * trained_share
    host = 0
    weights = width * (share + small + trained.num_buffers)
    if layout.offloads_optimizer:
        host += FP32_BYTES * (2 + layout.num_moments) * trained_share
        optimizer = gradients = 0
    if layout.offloads_parameters:
        host += width * share
        weights -= width * share
    gathered = min(large, layout.prefetched_elements + trained.largest) if world_size > 1 else 0
    return ModelMemory(
        weights=weights,
        optimizer=optimizer,
        gradients=gradients + _in_flight(trained, layout),
        buckets=width * layout.bucket_elements,
        gather=width * gathered,
        evaluation_gather=width * large,
        keeps_gradients=True,
        host=host,
    )
