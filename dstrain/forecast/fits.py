"""Whether a run fits into a GPU's memory on each ZeRO stage, and which stage to take. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from dstrain.config.machine import Machine
from dstrain.forecast.memory import ModelMemory

Verdict = Literal["fits", "tight", "does not fit"]

CONTEXT_BYTES = (400 << 20, 1200 << 20)
"""What CUDA, its libraries and kernels take on a GPU, from little to much."""
PEERS_BYTES = (200 << 20, 1200 << 20)
"""What NCCL takes besides, where there are other ranks."""
FRAGMENTATION = (0.0, 0.1)
"""Share of all tensors that torch's allocator reserves without using it."""
GB = 1e9


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one GPU, by part, at the moments when most is in use."""

    stage: int
    model: ModelMemory
    activations: int
    logits: int
    search: int

    @property
    def training(self) -> int:
        """While the largest micro-batch is differentiated."""
        model = self.model
        return model.lower_bound + model.buckets + model.gather + self.activations + self.logits

    @property
    def evaluation(self) -> int:
        """While the largest evaluation batch is searched."""
        model = self.model
        kept = model.gradients + model.buckets if model.keeps_gradients else 0
        return model.weights + model.optimizer + kept + model.evaluation_gather + self.search

    @property
    def peaks_in_training(self) -> bool:
        """Whether training needs as much as an evaluation or more."""
        return self.training >= self.evaluation

    @property
    def peak(self) -> int:
        """The larger of both."""
        return max(self.training, self.evaluation)


def overhead(peak: int, *, world_size: int) -> tuple[int, int]:
    """Bytes besides the tensors, from few to many."""
    low, high = (
        context + (peers if world_size > 1 else 0) + int(share * peak)
        for context, peers, share in zip(CONTEXT_BYTES, PEERS_BYTES, FRAGMENTATION, strict=True)
    )
    return low, high


def judge(memory: Memory, *, capacity: int, world_size: int) -> Verdict:
    """Whether the run fits into `capacity` bytes: surely, perhaps, or not."""
    low, high = overhead(memory.peak, world_size=world_size)
    if memory.peak + high <= capacity:
        return "fits"
    return "tight" if memory.peak + low <= capacity else "does not fit"


def allowed_stages(machine: Machine, *, precision: str) -> tuple[int, ...]:
    """The stages that the other keys of `machine` allow, the fastest first: those that shard more exchange more."""
    stages: Iterable[int] = range(0 if precision == "fp32" else 1, 4)
    if machine.offload_parameters:
        stages = (3,)
    elif machine.offload_optimizer:
        stages = (1, 2, 3)
    return tuple(stage for stage in stages if not (machine.compile and stage == 3))


def recommend_stage(
    memories: Sequence[Memory], *, allowed: Sequence[int], capacity: int | None, world_size: int
) -> tuple[int, str]:
    """The stage to take, and why. Without a capacity the smallest memory of those that are about as fast decides."""
    by_stage = {memory.stage: memory for memory in memories if memory.stage in allowed}
    if capacity is None:
        stage = allowed[0] if world_size == 1 else next((each for each in allowed if each >= 1), allowed[0])
        why = "one rank has no one to share with" if world_size == 1 else "it shards the optimizer at no cost in speed"
        return stage, f"{why}; no GPU memory is known that it would have to fit into"
    verdicts = {stage: judge(memory, capacity=capacity, world_size=world_size) for stage, memory in by_stage.items()}
    for wanted in ("fits", "tight"):
        found = next((stage for stage in allowed if verdicts[stage] == wanted), None)
        if found is not None:
            faster = [stage for stage in allowed if stage < found]
            why = f"the first that {'fits' if wanted == 'fits' else 'may fit'}: smaller stages exchange less"
            if not faster:
                why = f"it {'fits' if wanted == 'fits' else 'may fit'}, and no other stage is faster"
            return found, why
    smallest = min(by_stage.values(), key=lambda memory: memory.peak)
    return smallest.stage, "none fits; this one needs least"


def refusal(
    memory: Memory, *, capacity: int, device: str, world_size: int, num_trained: int, smallest: Memory
) -> str | None:
    """Why a run cannot fit, whatever its data, with the numbers and the ways out; None where it may.

    Only weights, gradients and optimizer count, without any activation, buffer or context: what is refused would surely fail.
    `smallest` is the memory of the stage that needs least.
    """
    needed = memory.model.lower_bound
    if needed <= capacity:
        return None
    model = memory.model
    ways = []
    if smallest.stage != memory.stage and smallest.model.lower_bound < needed:
        ways.append(
            f"machine.zero_stage={smallest.stage} (these parts take {smallest.model.lower_bound / GB:.1f} GB there on "
            f"{world_size} GPUs)"
        )
    ways += [
        "more GPUs",
        "machine.offload_optimizer=true",
        "model.adapter or model.freeze, which train fewer parameters",
    ]
    return (
        f"this run cannot fit: weights {model.weights / GB:.1f} GB, gradients {model.gradients / GB:.1f} GB and optimizer "
        f"{model.optimizer / GB:.1f} GB of {num_trained:,} trained parameters take {needed / GB:.1f} GB on each GPU with ZeRO "
        f"{memory.stage}, and {device} has {capacity / GB:.1f} GB. Take {', '.join(ways)}; `dstrain plan` shows each part"
    )
