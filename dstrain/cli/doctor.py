"""`dstrain doctor`: whether this machine can train, and why not."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from dstrain.cli.common import RECIPE, AsJson
from dstrain.cli.completion import complete_recipe
from dstrain.cluster.console import describe, say
from dstrain.cluster.exit_codes import EXIT_FAILED
from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run.base_check import check_base
from dstrain.run.cache import cache_dir, default_cache_dir


def doctor(
    config: Annotated[
        str | None, typer.Argument(metavar="[RECIPE]", help=RECIPE, autocompletion=complete_recipe)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at everything that a run needs of this machine: versions, GPUs, memory, disks, names, variables.

    With a recipe, also whether its device, precision and folders are to be had here. Ends with 1 if something prevents training.
    """
    from dstrain.doctor import text  # here, so that the other commands start faster
    from dstrain.doctor.examine import Plan, examine
    from dstrain.doctor.finding import Finding, ok, prevents_training, problem
    from dstrain.doctor.libraries import Wish

    findings: list[Finding] = []
    plan = Plan(Path("runs"), default_cache_dir(os.environ))
    if config is not None:
        try:
            recipe = _load(config)
        except (UserError, OSError) as error:
            findings.append(
                problem("recipe", describe(error), way_out=f"correct it until `dstrain check {config}` says ok")
            )
        else:
            findings.append(ok("recipe", config))
            wish = Wish(recipe.machine.device, recipe.precision)
            plan = Plan(Path(recipe.run_dir), cache_dir(recipe), wish)
    findings += examine(plan)
    say(json.dumps(text.as_json(findings), indent=2, ensure_ascii=False) if as_json else text.describe(findings))
    raise typer.Exit(EXIT_FAILED if prevents_training(findings) else 0)


def _load(name: str) -> RunConfig:
    config = load_config(name, check_files=True)
    check_base(config)
    return config
