"""How long steps, evaluations and saves take: operations over a rate. Pure.

The rate comes from earlier runs, from a measurement, or from a GPU's published peak; each way gives a range.
"""

from collections.abc import Iterable
from typing import NamedTuple

from dstrain.forecast.architecture import Architecture, Stack
from dstrain.forecast.request import Machines
from dstrain.forecast.workload import Batch, Workload


class Range(NamedTuple):
    """A value that is not known exactly: at least, likely, at most."""

    low: float
    likely: float
    high: float

    def times(self, factor: float) -> "Range":
        return Range(self.low * factor, self.likely * factor, self.high * factor)

    def over(self, rate: "Range") -> "Range":
        """This quantity divided by a rate: the lowest by the fastest."""
        return Range(self.low / rate.high, self.likely / rate.likely, self.high / rate.low)

    def plus(self, other: "Range") -> "Range":
        return Range(*(one + two for one, two in zip(self, other, strict=True)))

    def at_least(self, other: "Range") -> "Range":
        """The larger of both, at every end."""
        return Range(*(max(one, two) for one, two in zip(self, other, strict=True)))


def exactly(value: float) -> Range:
    return Range(value, value, value)


UTILISATION = Range(0.15, 0.35, 0.55)
"""Share of a GPU's peak that matrix products of training reach; an estimate."""
KERNELS = {"like T5": 180, "like BART": 100}
"""Kernels of a layer, forward and backward; counted: 2,451 in M2M100's 24 layers, 2,842 in mT5-small's 16."""
KERNEL_SECONDS = Range(4e-6, 6.5e-6, 9e-6)
"""The host's time for a kernel; an estimate."""
UPDATE_SECONDS = Range(0.004, 0.01, 0.03)
"""The optimizer's part of a step on a GPU, with its synchronisations; an estimate."""
SHARDING = {0: 1.0, 1: 1.1, 2: 1.6, 3: 2.0}
"""Factor on the host's part of a micro-batch by ZeRO stage; measured with 509 parameters on one rank, rounded."""
LOGIT_PASSES = 13
"""How often the loss passes over its fp32 logits."""
NODE_BANDWIDTH = Range(10e9, 100e9, 300e9)
"""Bytes a second between GPUs of a node: PCIe to NVLink; an estimate."""
NETWORK_BANDWIDTH = Range(1e9, 12e9, 50e9)
"""Bytes a second between nodes: 10 Gbit Ethernet to several InfiniBand ports; an estimate."""
CPU_RATE = Range(8e9, 25e9, 60e9)
"""Operations a second of one CPU core in fp32; an estimate."""
TOKEN_KERNELS = {"like T5": 24, "like BART": 11}
"""Kernels of a layer for a generated token; counted: 251 in M2M100's 24 layers, 389 in mT5-small's 16."""
SAVE_RATE = Range(0.15e9, 0.5e9, 2e9)
"""Bytes a second that a rank writes; an estimate."""
COPY_RATE = Range(1e9, 5e9, 12e9)
"""Bytes a second from the device to the host's memory, while training stands still; an estimate."""
SET_UP_SECONDS = Range(20.0, 60.0, 300.0)
"""From the start of the processes to the first step, with the token ids in the cache; an estimate."""


def forward_operations(architecture: Architecture, *, source: float, target: float, labels: float) -> float:
    """Floating-point operations of a forward pass over as many positions and labels: two for a multiply-add."""
    hidden = architecture.hidden
    encoder, decoder = architecture.encoder, architecture.decoder
    of_source = encoder.num_layers * (_attention(encoder, hidden) + _feed_forward(architecture, encoder))
    of_source += decoder.num_layers * 2 * hidden * decoder.inner  # keys and values of the source
    of_target = decoder.num_layers * (
        _attention(decoder, hidden) + 2 * hidden * decoder.inner + _feed_forward(architecture, decoder)
    )
    return 2.0 * (of_source * source + of_target * target + hidden * architecture.vocabulary * labels)


def _attention(stack: Stack, hidden: int) -> int:
    return 4 * hidden * stack.inner


def _feed_forward(architecture: Architecture, stack: Stack) -> int:
    return (3 if architecture.is_gated else 2) * architecture.hidden * stack.feed_forward


def score_operations(architecture: Architecture, batch: Batch) -> float:
    """Operations of the products of queries, keys and values, in a forward pass."""
    encoder, decoder = architecture.encoder, architecture.decoder
    pairs = encoder.num_layers * encoder.inner * batch.source**2
    pairs += decoder.num_layers * decoder.inner * batch.target * (batch.target + batch.source)
    return 4.0 * batch.num_rows * pairs


def batch_operations(architecture: Architecture, batch: Batch, *, recomputes: bool = False) -> float:
    """Operations of forward and backward pass over a micro-batch: the backward pass takes twice the forward's."""
    forward = forward_operations(
        architecture,
        source=batch.num_rows * batch.source,
        target=batch.num_rows * batch.target,
        labels=batch.labels,
    )
    return (4.0 if recomputes else 3.0) * (forward + score_operations(architecture, batch))


def step_operations(architecture: Architecture, steps: Iterable[Iterable[Batch]], *, recomputes: bool = False) -> float:
    """Operations of a step over all ranks, on average."""
    found = [sum(batch_operations(architecture, batch, recomputes=recomputes) for batch in step) for step in steps]
    return sum(found) / len(found)


def estimate_step(
    architecture: Architecture,
    workload: Workload,
    *,
    machines: Machines,
    precision: str,
    stage: int,
    num_trained: int,
    recomputes: bool,
) -> Range:
    """Seconds of an optimizer step, from published peaks and counted kernels."""
    operations = step_operations(architecture, workload.steps, recomputes=recomputes)
    per_rank = -(-workload.micro_batches // machines.world_size)  # ranks with fewer wait for the others
    share = operations / workload.micro_batches * per_rank
    if machines.device == "cpu":
        return exactly(share).over(CPU_RATE.times(machines.cores))
    assert machines.gpu is not None
    computed = exactly(share).over(UTILISATION.times(machines.gpu.peak(precision)))
    labels = sum(batch.labels for step in workload.steps for batch in step) / len(workload.steps)
    passes = LOGIT_PASSES * 4.0 * labels / workload.micro_batches * per_rank * architecture.vocabulary
    computed = computed.plus(exactly(passes / (machines.gpu.gigabytes_per_second * 1e9)))
    kernels = KERNELS[_like(architecture)] * architecture.num_layers * per_rank * SHARDING[stage]
    # the host launches ahead of the GPU: the slower of both decides
    seconds = computed.at_least(KERNEL_SECONDS.times(kernels)).plus(UPDATE_SECONDS)
    if machines.world_size == 1:
        return seconds
    bandwidth = NETWORK_BANDWIDTH if machines.num_nodes > 1 else NODE_BANDWIDTH
    exchanged = 8.0 * num_trained * (machines.world_size - 1) / machines.world_size
    return seconds.plus(exactly(exchanged).over(bandwidth))


def estimate_evaluation(
    architecture: Architecture, workload: Workload, *, machines: Machines, precision: str, num_beams: int
) -> Range:
    """Seconds of an evaluation: hypotheses as long as their references, and the loss of the references."""
    operations = evaluation_operations(architecture, workload, num_beams=num_beams) / machines.world_size
    if machines.device == "cpu":
        # products of few rows reach less of a core than training does
        return exactly(operations).over(CPU_RATE.times(machines.cores / 2))
    assert machines.gpu is not None
    computed = exactly(operations).over(UTILISATION.times(machines.gpu.peak(precision) / 4))
    kernels = TOKEN_KERNELS[_like(architecture)] * architecture.num_layers
    tokens = sum(batch.target for batch in workload.searches.batches) / machines.world_size
    return computed.plus(KERNEL_SECONDS.times(2 * kernels * tokens))


def evaluation_operations(
    architecture: Architecture, workload: Workload, *, num_beams: int, length: float | None = None
) -> float:
    """Operations of an evaluation over all ranks; `length` replaces that of the hypotheses."""
    total = 0.0
    for batch in workload.searches.batches:
        sources = batch.num_rows * batch.source
        written = batch.labels if length is None else batch.num_rows * length
        total += forward_operations(architecture, source=sources, target=batch.labels, labels=batch.labels)
        total += forward_operations(architecture, source=0, target=written * num_beams, labels=written * num_beams)
    return total


def estimate_save(*, num_bytes: int, world_size: int, in_background: bool) -> Range:
    """Seconds that training stands still for a checkpoint."""
    return exactly(num_bytes / world_size).over(COPY_RATE if in_background else SAVE_RATE)


def _like(architecture: Architecture) -> str:
    return "like T5" if architecture.is_like_t5 else "like BART"
