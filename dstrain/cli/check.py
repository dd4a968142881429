"""`dstrain check`: what is wrong with recipes, or what each amounts to."""

import os
from typing import Annotated

import typer

from dstrain.cli.completion import complete_override, complete_recipe_or_override
from dstrain.cluster.console import describe, say
from dstrain.cluster.exit_codes import EXIT_FAILED
from dstrain.config.arguments import shell_command
from dstrain.config.load import load_config
from dstrain.config.summary import summary
from dstrain.errors import UserError
from dstrain.run.position_check import check_positions
from dstrain.run.recipe_check import check_needs
from dstrain.tracking.backends import check_trackers


def check(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE... [KEY=VALUE]...",
            help="Recipe files or names.",
            autocompletion=complete_recipe_or_override,
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An override, like the arguments.",
            autocompletion=complete_override,
        ),
    ] = None,
) -> None:
    """Report everything that is wrong with recipes, each with file and line. Of data reads the first row, if they are local."""
    configs = [argument for argument in arguments if not _is_override(argument)]
    overrides = [argument for argument in arguments if _is_override(argument)] + (settings or [])
    if not configs:
        raise typer.BadParameter("name at least one recipe", param_hint="RECIPE")
    failed = False
    for name in configs:
        try:
            config = load_config(name, overrides=overrides, check_files=True)
            check_needs(config, reads_data=True)
            check_positions(config)
            check_trackers(config)
        except (UserError, OSError) as error:
            say(describe(error), err=True)
            failed = True
        else:
            say(f"{name}: ok\n{summary(config)}")
            say(f"what it takes of memory, disk and time: {shell_command(['dstrain', 'plan', name, *overrides])}")
    raise typer.Exit(EXIT_FAILED if failed else 0)


def _is_override(argument: str) -> bool:
    return "=" in argument and not os.path.exists(argument)  # False as well for what is too long for a name
