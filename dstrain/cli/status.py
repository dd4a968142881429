"""`dstrain status`: what a run is doing, once or again and again."""

import json
import sys
import time
from collections.abc import Callable
from typing import Annotated

import typer

from dstrain.cli.common import AsJson, RunArgument, clean_errors
from dstrain.cluster.console import Screen, can_redraw, say
from dstrain.cluster.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED
from dstrain.cluster.processes import this_process
from dstrain.status import text
from dstrain.status.inspect import RunStatus, inspect_status
from dstrain.status.judge import IN_ORDER
from dstrain.status.watch import changes_of, describe_change, describe_watched, is_over, watch


def status(
    run: RunArgument,
    as_json: AsJson = False,
    watched: Annotated[
        float | None,
        typer.Option(
            "--watch", metavar="[SECONDS]", min=0.0, help="Look every 2 or so many seconds until the run ends."
        ),
    ] = None,
    quiet_seconds: Annotated[
        float | None,
        typer.Option("--quiet-seconds", min=0.0, help="Call a run silent after so long; the default is by phase."),
    ] = None,
) -> None:
    """Say what a run is doing, here or on another node; exit code 0 if it runs or has finished, else 1.

    With --watch a terminal shows it until the run ends or Ctrl-C; elsewhere a line is printed when something has changed.
    """
    if watched is not None and as_json:
        raise typer.BadParameter("a program reads one status at a time: give --json or --watch", param_hint="--watch")

    def look() -> RunStatus:
        return inspect_status(run, now=time.time(), observer=this_process(), quiet_seconds=quiet_seconds)

    with clean_errors():
        found = look() if watched is None else _watch(look, seconds=watched)
    say(json.dumps(text.as_json(found), indent=1) if as_json else text.describe_status(found))
    raise typer.Exit(0 if found.state in IN_ORDER else EXIT_FAILED)


def _watch(look: Callable[[], RunStatus], *, seconds: float) -> RunStatus:
    """Show a run until it has ended; returns its status then."""
    screen = Screen() if can_redraw(sys.stdout) else None
    shown: tuple[object, ...] | None = None
    try:
        for found in watch(look, seconds=seconds):
            if is_over(found):
                break
            if screen is not None:
                screen.show(describe_watched(found, seconds=seconds))
            elif changes_of(found) != shown:
                say(describe_change(found))
                shown = changes_of(found)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if screen is not None:
        screen.clear()
    return found
