"""`dstrain sweep`: the members of a sweep, and the commands that submit and compare them."""

import json
import time
from typing import Annotated

import typer

from dstrain.cli.common import AsJson, Overrides, clean_errors
from dstrain.cluster.console import say
from dstrain.cluster.processes import this_process
from dstrain.sweep import text
from dstrain.sweep.inspect import inspect_sweep


def sweep(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A sweep file: a recipe, and a grid or a list of overrides.")
    ],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Check every member of a sweep, and say how to submit them as a job array and how to compare them."""
    with clean_errors():
        view = inspect_sweep(file, typed=overrides or (), now=time.time(), observer=this_process())
    say(json.dumps(text.as_json(view), indent=1) if as_json else text.describe_sweep(view))
