"""`dstrain train`: `dstrain.train` in this process."""

from typing import Annotated

import typer

from dstrain.cli.common import RECIPE, Overrides
from dstrain.cli.completion import complete_key, complete_recipe


def train(
    config: Annotated[str, typer.Option("--config", help=RECIPE, autocompletion=complete_recipe)],
    overrides: Overrides = None,
    debug: Annotated[bool, typer.Option("--debug", help="One process, a few rows, deterministic.")] = False,
    overfit: Annotated[
        int | None, typer.Option("--overfit", metavar="N", help="Debug: train on N rows until they are memorised.")
    ] = None,
    allow_changed: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-changed",
            metavar="FIELD",
            help="Resume although this field has changed.",
            autocompletion=complete_key,
        ),
    ] = None,
) -> None:
    """Train in one process. For several: `deepspeed --module dstrain.train --config …`."""
    from dstrain.train import main  # here, so that the other commands start faster

    argv = ["--config", config, *(overrides or [])]
    argv += ["--debug"] if debug else []
    argv += ["--overfit", str(overfit)] if overfit is not None else []
    argv += [argument for field in allow_changed or [] for argument in ("--allow-changed", field)]
    raise typer.Exit(main(argv))
