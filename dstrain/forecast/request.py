"""What `dstrain plan` is asked, from its options."""

import os
from pathlib import Path

from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.forecast.durations import Machines
from dstrain.forecast.gpus import USABLE, Gpu, find_gpu, parse_memory
from dstrain.forecast.plan import Request


def build_request(
    recipe: RunConfig,
    *,
    gpus: int,
    nodes: int,
    gpu: str | None,
    gpu_memory: str | None,
    hours: float | None,
    like: Path | None,
    parameters: int | None,
    gpus_here: int,
) -> Request:
    """The request of these options, on a machine with `gpus_here` GPUs.

    Raises:
        UserError: the kind of GPU or its memory is not known, or the recipe trains on the CPU.
    """
    kind, capacity = _find_gpu(recipe, gpu=gpu), None
    if gpu_memory is not None:
        capacity = parse_memory(gpu_memory)
    elif kind is not None:
        capacity = int(kind.memory_gb * 1e9 * USABLE)
    is_meant = recipe.machine.device == "cuda" or (recipe.machine.device is None and gpus_here > 0)
    is_cpu = gpu == "cpu" or (kind is None and capacity is None and not is_meant)
    cores = max(1, (os.cpu_count() or 1) // gpus)
    machines = Machines("cpu" if is_cpu else "cuda", kind, gpus * nodes, nodes, cores)
    return Request(machines, None if is_cpu else capacity, hours, like, parameters)


def _find_gpu(recipe: RunConfig, *, gpu: str | None) -> Gpu | None:
    if gpu is None or gpu == "cpu":
        return None
    if recipe.machine.device == "cpu":
        raise UserError(f"--gpu {gpu}: the recipe trains on the CPU (machine.device): leave one of both out")
    return find_gpu(gpu)
