"""What several commands share: the types of common arguments, and errors without a traceback."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dstrain.cli.completion import complete_override, complete_recipe, complete_run
from dstrain.cluster.console import describe, say
from dstrain.cluster.exit_codes import EXIT_FAILED
from dstrain.errors import UserError
from dstrain.run_folder.atomic import create_file

RECIPE = "A recipe file, or the name of a shipped recipe."

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help=RECIPE, autocompletion=complete_recipe)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Keys of the recipe to override.", autocompletion=complete_override),
]
RunArgument = Annotated[Path, typer.Argument(help="A run folder.", autocompletion=complete_run)]
ModelArgument = Annotated[
    str,
    typer.Argument(
        help="A run folder (its best model is taken), a model folder or a hub name.", autocompletion=complete_run
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@contextmanager
def clean_errors() -> Iterator[None]:
    """Prints a user's mistake as its message, without a traceback, and ends with EXIT_FAILED."""
    try:
        yield
    except (UserError, OSError) as error:
        say(describe(error), err=True)
        raise typer.Exit(EXIT_FAILED) from error


def check_new(path: Path) -> None:
    """Raises UserError if something exists at the path of a recipe that is to be written."""
    if os.path.lexists(path):
        raise UserError(f"{path} exists already: name another file with --output, or remove it")


def create_recipe(path: Path, text: str) -> None:
    """Write a recipe to a file that does not exist yet; raises UserError if something exists there."""
    check_new(path)
    create_file(path, text.encode())
