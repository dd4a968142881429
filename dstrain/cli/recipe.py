"""`dstrain recipe`: the shipped recipes, and drafts of new ones."""

import re
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import typer

from dstrain.cli.common import Command, RecipeArgument, clean_errors, create_recipe
from dstrain.cluster.console import say
from dstrain.config.arguments import shell_command
from dstrain.config.load import find_config
from dstrain.config.shipped import as_own, recipes_folder, shipped_recipes
from dstrain.reporting.terminal import aligned

recipe = typer.Typer(help="The shipped recipes, and the recipe of a published model card.", no_args_is_help=True)


@recipe.command("list", cls=Command)
def list_recipes() -> None:
    """List the shipped recipes, each with what it is for."""
    say(
        aligned(
            [(name, _purpose((recipes_folder() / f"{name}.yaml").read_text("utf-8"))) for name in shipped_recipes()]
        )
    )


@recipe.command("copy", cls=Command)
def copy_recipe(
    name: RecipeArgument,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="The recipe to write; default is RECIPE.yaml.")
    ] = None,
) -> None:
    """Write a copy of a shipped recipe, to be changed, with a comment behind every line."""
    with clean_errors():
        source = find_config(name)
        path = output or Path(source.name)
        create_recipe(path, as_own(source.read_text("utf-8"), file=path))
        say(f"wrote {path}\nnext: {shell_command(['dstrain', 'check', path])}")


@recipe.command("from-card", cls=Command)
def from_card(
    card: Annotated[
        Path, typer.Argument(metavar="CARD.md", help="A model card, such as the README.md of a model on the Hub.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="The recipe to write; default is the card's title with .yaml."),
    ] = None,
) -> None:
    """Write the recipe of a published model card, with a comment behind every line.

    It has what the card states, the defaults of its trainer where it is silent, and a question where nothing answers.
    """
    with clean_errors():
        from dstrain.draft.card import read_card  # here, so that the other commands start faster
        from dstrain.draft.from_card import draft_from_card
        from dstrain.draft.report import report_on_card

        draft = draft_from_card(read_card(card), file=str(output) if output else None)
        path = output or Path(f"{draft.name}.yaml")
        create_recipe(path, draft.text)
        say(report_on_card(draft, path=path))
        say(f"next: {shell_command(['dstrain', 'check', path])}")


def _purpose(text: str) -> str:
    """The beginning of the comment at the head of a shipped recipe, below the command: up to its first full stop or colon."""
    comments = takewhile(lambda line: line.startswith("#"), text.splitlines()[1:])
    text = " ".join(" ".join(line.lstrip("# ") for line in comments).split())
    return re.split(r"[.:] ", text)[0]
