"""`dstrain plan`: what a run will take of memory, disk and time, before it is started."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from dstrain.cli.common import AsJson, Overrides, RecipeArgument, clean_errors
from dstrain.cli.completion import complete_choice, complete_run
from dstrain.cluster.console import say
from dstrain.config.load import load_config
from dstrain.drill.launch import count_gpus
from dstrain.errors import UserError
from dstrain.forecast.gpus import GPUS
from dstrain.forecast.request import CPU, Request, describe_machines
from dstrain.run.cache import cache_dir

Kind = Annotated[
    str | None,
    typer.Option(
        "--gpu",
        help="Kind of GPU, such as h100 or a100-40, less what its driver keeps; or cpu.",
        autocompletion=complete_choice(lambda: [*GPUS, CPU]),
    ),
]


def plan(
    config: RecipeArgument,
    overrides: Overrides = None,
    gpus: Annotated[int, typer.Option("--gpus", min=1, help="GPUs of a node, or ranks without a GPU.")] = 1,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Nodes.")] = 1,
    gpu: Kind = None,
    gpu_memory: Annotated[
        str | None,
        typer.Option(
            "--gpu-memory",
            help="Memory of a GPU, such as 80GB, taken as it is, not its kind's.",
        ),
    ] = None,
    hours: Annotated[float | None, typer.Option("--hours", min=0.01, help="Length of an allocation.")] = None,
    like: Annotated[
        Path | None,
        typer.Option("--like", help="A run folder: trains as fast as that run did.", autocompletion=complete_run),
    ] = None,
    measure: Annotated[
        int | None,
        typer.Option("--measure", min=4, help="Train so many steps on this machine to see how fast it is."),
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
        machines, capacity = describe_machines(
            gpu=gpu,
            gpu_memory=gpu_memory,
            per_node=gpus,
            num_nodes=nodes,
            device=recipe.machine.device,
            has_gpu=count_gpus(os.environ) > 0,
            num_cores=os.cpu_count() or 1,
        )
        if measure is not None and nodes > 1:
            raise UserError("--measure runs on this machine only: leave --nodes out, or name a run with --like")
        from dstrain.drill.trial import run_trial  # imports numpy, as the others
        from dstrain.forecast.plan import forecast
        from dstrain.forecast.text import as_text
        from dstrain.forecast.values import as_json

        trial = None
        if measure is not None:
            say(f"training {measure} steps to see how fast this machine is …", err=True)
            trial = run_trial(recipe, steps=measure, num_ranks=gpus, environment=os.environ)
        request = Request(machines, capacity, hours, like, parameters)
        found = forecast(recipe, request, cache=cache_dir(recipe), trial=trial)
        say(json.dumps(as_json(found), indent=1) if as_json_text else as_text(found))
