"""`dstrain recipe`: drafts of recipes."""

from pathlib import Path
from typing import Annotated

import typer

from dstrain.cli.common import clean_errors, create_recipe
from dstrain.cluster.console import say
from dstrain.config.arguments import shell_command

recipe = typer.Typer(help="Draft a recipe from a published model card.", no_args_is_help=True)


@recipe.callback()
def _commands() -> None:
    """Draft a recipe from a published model card."""


@recipe.command("from-card")
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
