"""`dstrain plan`: what a run will take of memory, disk and time, before it is started."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from dstrain.cli.common import RECIPE, AsJson, Overrides, clean_errors
from dstrain.cluster.console import say
from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.drill.launch import count_gpus
from dstrain.drill.trial import MIN_STEPS, run_trial
from dstrain.errors import UserError
from dstrain.forecast.durations import Machines
from dstrain.forecast.gpus import USABLE, Gpu, find_gpu, parse_memory
from dstrain.forecast.plan import Request, forecast
from dstrain.forecast.text import as_text
from dstrain.forecast.values import as_json
from dstrain.run.cache import cache_dir


def plan(
    config: Annotated[str, typer.Argument(metavar="RECIPE", help=RECIPE)],
    overrides: Overrides = None,
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="GPUs of a node, or ranks without a GPU.")] = 1,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Nodes.")] = 1,
    gpu: Annotated[str | None, typer.Option("--gpu", help="Kind of GPU, such as h100 or a100-40; or cpu.")] = None,
    gpu_memory: Annotated[
        str | None, typer.Option("--gpu-memory", help="Memory of a GPU, such as 80GB, instead of its kind's.")
    ] = None,
    hours: Annotated[float | None, typer.Option("--hours", min=0.01, help="Length of an allocation.")] = None,
    like: Annotated[Path | None, typer.Option("--like", help="A run folder: trains as fast as that run did.")] = None,
    measure: Annotated[
        int | None,
        typer.Option("--measure", min=MIN_STEPS, help="Train so many steps on this machine to see how fast it is."),
    ] = None,
    parameters: Annotated[
        int | None,
        typer.Option("--parameters", min=1, help="Parameters of a model that is not here and not on the Hub."),
    ] = None,
    as_json_text: AsJson = False,
) -> None:
    """Say what a run will take: parameters, memory by ZeRO stage, disk, time, and whether it ends in its allocation."""
    with clean_errors():
        recipe = load_config(config, overrides=overrides or [], check_files=True)
        request = _request(
            recipe,
            gpus=gpus,
            nodes=nodes,
            gpu=gpu,
            gpu_memory=gpu_memory,
            hours=hours,
            like=like,
            parameters=parameters,
        )
        trial = None
        if measure is not None:
            if nodes > 1:
                raise UserError("--measure runs on this machine only: leave --nodes out, or name a run with --like")
            say(f"training {measure} steps to see how fast this machine is …", err=True)
            trial = run_trial(recipe, steps=measure, num_ranks=gpus, environment=os.environ)
        found = forecast(recipe, request, cache=cache_dir(recipe), trial=trial)
        say(json.dumps(as_json(found), indent=1) if as_json_text else as_text(found))


def _request(
    recipe: RunConfig,
    *,
    gpus: int,
    nodes: int,
    gpu: str | None,
    gpu_memory: str | None,
    hours: float | None,
    like: Path | None,
    parameters: int | None,
) -> Request:
    kind, capacity = _find_gpu(recipe, gpu=gpu), None
    if gpu_memory is not None:
        capacity = parse_memory(gpu_memory)
    elif kind is not None:
        capacity = int(kind.memory_gb * 1e9 * USABLE)
    is_cpu = gpu == "cpu" or (kind is None and capacity is None and not _has_gpu(recipe))
    cores = max(1, (os.cpu_count() or 1) // gpus)
    machines = Machines("cpu" if is_cpu else "cuda", kind, gpus * nodes, nodes, cores)
    return Request(machines, None if is_cpu else capacity, hours, like, parameters)


def _find_gpu(recipe: RunConfig, *, gpu: str | None) -> Gpu | None:
    if gpu is None or gpu == "cpu":
        return None
    if recipe.machine.device == "cpu":
        raise UserError(f"--gpu {gpu}: the recipe trains on the CPU (machine.device): leave one of both out")
    return find_gpu(gpu)


def _has_gpu(recipe: RunConfig) -> bool:
    """Whether the recipe or this machine says that a GPU is meant."""
    return recipe.machine.device == "cuda" or (recipe.machine.device is None and count_gpus(os.environ) > 0)
