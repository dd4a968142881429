"""The `dstrain` command: assembles the commands of this folder. Knows the name of each and nothing of what it does.

A new command is one new file with a function of the same name, and one line in COMMANDS; or, if it has commands of its own, with
a Typer application of the same name, and one line in GROUPS.
"""

from importlib import import_module
from typing import Annotated

import typer

from dstrain.cli.common import Command
from dstrain.cluster.console import clean_tracebacks, say

COMMANDS = (
    "init",
    "check",
    "audit",
    "plan",
    "prepare",
    "train",
    "evaluate",
    "predict",
    "card",
    "report",
    "status",
    "explain",
    "compare",
    "track",
    "sweep",
    "verify",
    "export",
    "average",
    "push",
    "drill",
    "scripts",
    "doctor",
)
"""In the order of `dstrain --help`."""

GROUPS = ("recipe",)
"""Those that have commands of their own."""

app = typer.Typer(
    help="Distributed training of sequence-to-sequence models: one recipe, any machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the versions that matter.")] = False) -> None:
    """Distributed training of sequence-to-sequence models: one recipe, any machine."""
    clean_tracebacks()
    if version:
        from dstrain.doctor.versions import list_versions  # here, because no other start needs it

        say("\n".join(list_versions()))
        raise typer.Exit


for _name in COMMANDS:
    app.command(cls=Command)(getattr(import_module(f"dstrain.cli.{_name}"), _name))
for _name in GROUPS:
    app.add_typer(getattr(import_module(f"dstrain.cli.{_name}"), _name), name=_name)
