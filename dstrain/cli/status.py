"""`dstrain status`: what a run is doing."""

import json
import time
from typing import Annotated

import typer

from dstrain.cli.common import AsJson, RunArgument, clean_errors
from dstrain.cluster.console import say
from dstrain.cluster.exit_codes import EXIT_FAILED
from dstrain.cluster.processes import this_process
from dstrain.status import text
from dstrain.status.inspect import inspect_status
from dstrain.status.judge import IN_ORDER


def status(
    run: RunArgument,
    as_json: AsJson = False,
    quiet_seconds: Annotated[
        float | None,
        typer.Option("--quiet-seconds", min=0.0, help="Call a run silent after so long; the default is by phase."),
    ] = None,
) -> None:
    """Say what a run is doing, here or on another node; exit code 0 if it runs or has finished, else 1."""
    with clean_errors():
        found = inspect_status(run, now=time.time(), observer=this_process(), quiet_seconds=quiet_seconds)
    say(json.dumps(text.as_json(found), indent=1) if as_json else text.describe_status(found))
    raise typer.Exit(0 if found.state in IN_ORDER else EXIT_FAILED)
