"""`dstrain evaluate`: `dstrain.evaluate` in this process."""

from pathlib import Path
from typing import Annotated

import typer

from dstrain.cli.common import ConfigOption, ModelArgument, Overrides


def evaluate(
    model: ModelArgument,
    overrides: Overrides = None,
    config: ConfigOption = None,
    step: Annotated[int | None, typer.Option("--step", help="Score the checkpoint of this step of a run.")] = None,
    name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Name of another test set: its scores join the run's card."),
    ] = None,
    pending: Annotated[
        bool, typer.Option("--pending", help="Make the evaluations that the run left to another job.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", help="Folder for the scores.")] = None,
) -> None:
    """Score a model in one process. For several: `torchrun … launch/evaluate.py`, or slurm/evaluate.sbatch."""
    from dstrain.evaluate import main  # here, so that the other commands start faster

    given = {"--config": config, "--step": step, "--as": name, "--output": output}
    argv = [model, *(overrides or []), *(["--pending"] if pending else [])]
    argv += [f"{flag}={value}" for flag, value in given.items() if value is not None]
    raise typer.Exit(main(argv, program="dstrain evaluate"))
