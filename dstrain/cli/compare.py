"""`dstrain compare`: runs side by side."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from dstrain.cli.common import AsJson
from dstrain.cluster.console import describe, say
from dstrain.cluster.exit_codes import EXIT_FAILED
from dstrain.cluster.processes import this_process
from dstrain.errors import UserError
from dstrain.reporting import comparison
from dstrain.run_folder.record import load_record
from dstrain.status.inspect import inspect_status


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table, for a page.")] = False,
) -> None:
    """Show runs side by side, with the recipe keys in which they differ; exit code 1 if one is not a run.

    The best comes first, if the runs have the same metric and evaluation rows; otherwise they stay in the order given.
    """
    found: list[comparison.Compared] = []
    for run in runs:
        try:
            record = load_record(run)
        except (UserError, OSError, RecursionError) as error:
            say(f"{run} is skipped: {describe(error).removeprefix(f'{run}: ')}", err=True)
        else:
            state = inspect_status(run, now=time.time(), observer=this_process()).state
            found.append(comparison.describe_run(record, run=str(run), state=state))
    if as_json:
        say(json.dumps(comparison.as_json(found), indent=1))
    elif as_markdown and found:
        say(comparison.markdown_table(found))
    elif found:
        # a pipe or a file has no width: every run stays one line, for `grep` and `less -S`
        width = shutil.get_terminal_size(fallback=(sys.maxsize, 0)).columns
        say(comparison.text_table(found, width=width))
    if reason := comparison.why_unranked(found):
        say(reason, err=True)
    raise typer.Exit(0 if len(found) == len(runs) else EXIT_FAILED)
