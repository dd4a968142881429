"""What a forecast is asked about: machines, an allocation, and where rates may come from. Pure; imports no numpy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dstrain.errors import UserError
from dstrain.forecast.gpus import USABLE, Gpu, find_gpu, parse_memory

CPU = "cpu"
"""In place of a kind of GPU."""


@dataclass(frozen=True, slots=True)
class Machines:
    """What computes."""

    device: str
    """`cpu` or `cuda`."""
    gpu: Gpu | None
    world_size: int
    num_nodes: int
    cores: int
    """CPU cores of a rank, where there is no GPU."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked about."""

    machines: Machines
    capacity: int | None = None
    """Bytes of a GPU that a program can have; None if that is not known."""
    hours: float | None = None
    """Length of an allocation."""
    like: Path | None = None
    """An earlier run that trains as fast."""
    num_parameters: int | None = None
    """Those of a model that cannot be looked at."""


def describe_machines(
    *,
    gpu: str | None,
    gpu_memory: str | None,
    per_node: int,
    num_nodes: int,
    device: Literal["cpu", "cuda"] | None,
    has_gpu: bool,
    num_cores: int,
) -> tuple[Machines, int | None]:
    """The machines that a user names, and the bytes of a GPU; None on CPUs and if that is not known.

    `device` is that of the recipe, `has_gpu` whether this machine has one: they decide where the user names no GPU.

    Raises:
        UserError: the GPU is not known, its memory is no size, or the recipe trains on the CPU.
    """
    kind, capacity = None, None
    if gpu is not None and gpu != CPU:
        if device == CPU:
            raise UserError(f"--gpu {gpu}: the recipe trains on the CPU (machine.device): leave one of both out")
        kind = find_gpu(gpu)
        capacity = int(kind.memory_gb * 1e9 * USABLE)
    if gpu_memory is not None:
        capacity = parse_memory(gpu_memory)
    named = gpu is not None or gpu_memory is not None
    is_cpu = gpu == CPU or (not named and (device == CPU or (device is None and not has_gpu)))
    machines = Machines(CPU if is_cpu else "cuda", kind, per_node * num_nodes, num_nodes, max(1, num_cores // per_node))
    return machines, None if is_cpu else capacity
