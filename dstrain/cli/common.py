"""What several commands share: the types of common arguments, and errors without a traceback."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from dstrain.cli.completion import complete_override, complete_recipe, complete_run
from dstrain.cluster.console import describe, say
from dstrain.cluster.exit_codes import EXIT_FAILED, EXIT_USAGE
from dstrain.config.arguments import find_given_twice
from dstrain.config.habits import correct
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
ConfigOption = Annotated[
    str | None,
    typer.Option("--config", help="The recipe; a run folder has its own.", autocompletion=complete_recipe),
]
OPTIONAL: Mapping[str, str] = {"[SECONDS]": "2"}
"""The metavar of an option whose value may be left out, to that value."""
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


class Command(TyperCommand):
    """A command that answers arguments of other tools' habit with the right ones, whose options may have optional values, and
    that refuses an option of one value with two."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options, repeatable = {"--help": False}, set[str]()
        for param in self.params:
            takes_value = not getattr(param, "is_flag", False) and not getattr(param, "count", False)
            options |= {name: takes_value for name in (*param.opts, *param.secondary_opts) if name.startswith("-")}
            repeatable |= set(param.opts) if getattr(param, "multiple", False) else set()
            if (metavar := str(param.metavar)) in OPTIONAL:
                args = with_default(args, option=param.opts[0], default=OPTIONAL[metavar])
        arguments = [param for param in self.params if not param.opts[0].startswith("-")]
        is_completion = ctx.resilient_parsing  # of a line that is not written to its end
        if not is_completion and any("KEY=VALUE" in str(param.metavar) for param in arguments):
            takes_recipe = any(param.name not in ("overrides", "key") for param in arguments)
            takes_key = any(param.name == "key" for param in arguments)
            told = correct(
                args, program=ctx.command_path, options=options, takes_recipe=takes_recipe, takes_key=takes_key
            )
            if told is not None:
                say(told, err=True)
                raise typer.Exit(EXIT_USAGE)
        twice = find_given_twice(args, options=options, repeatable=repeatable)
        if twice is not None and not is_completion:
            ctx.fail(twice)
        return super().parse_args(ctx, args)


def with_default(args: Sequence[str], *, option: str, default: str) -> list[str]:
    """The arguments with a default behind an option whose value, a number, was left out."""
    found = list(args)
    if option in found:
        place = found.index(option) + 1
        if not re.fullmatch(r"[0-9.]+", "".join(found[place : place + 1])):
            found.insert(place, default)
    return found


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
