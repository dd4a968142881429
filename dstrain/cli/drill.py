"""`dstrain drill`: a short run of a recipe, killed on purpose at chosen moments."""

import os
from pathlib import Path
from typing import Annotated

import typer

from dstrain.cli.common import Overrides, RecipeArgument
from dstrain.cluster.console import describe, say
from dstrain.cluster.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from dstrain.config.load import load_config
from dstrain.drill.drill import run_drill
from dstrain.drill.launch import count_gpus
from dstrain.drill.scenarios import MIN_STEPS, plan_scenarios
from dstrain.errors import UserError


def drill(
    config: RecipeArgument,
    overrides: Overrides = None,
    ranks: Annotated[
        int | None, typer.Option("--ranks", min=1, help="Processes on this machine; default is one per GPU, else one.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=MIN_STEPS, help="Optimizer steps of each run.")] = 12,
    output: Annotated[Path | None, typer.Option("--output", help="The drill's folder; <run folder>-drill.")] = None,
    launch_minutes: Annotated[
        float, typer.Option("--launch-minutes", help="An attempt that takes longer is killed and counts as failed.")
    ] = 30.0,
    scenarios: Annotated[str, typer.Option("--scenarios", hidden=True, help="step,manifest: these alone.")] = "",
) -> None:
    """Kill a short run of a recipe at chosen moments on this machine, and prove that nothing is lost: exit code 0 if so."""
    try:
        loaded = load_config(config, overrides=overrides or (), check_files=True)
        nothing_lost = run_drill(
            loaded,
            scenarios=plan_scenarios(
                num_ranks=ranks or max(1, count_gpus(os.environ)),
                steps=steps,
                has_rehearsal=loaded.evaluation.rehearsal,
                only=[name for name in scenarios.split(",") if name],
            ),
            steps=steps,
            folder=output or Path(f"{loaded.run_dir.rstrip('/')}-drill"),
            launch_minutes=launch_minutes,
            environment=os.environ,
            say=say,
        )
    except (UserError, OSError) as error:
        say(describe(error), err=True)
        raise typer.Exit(EXIT_USAGE) from error
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    raise typer.Exit(0 if nothing_lost else EXIT_FAILED)
