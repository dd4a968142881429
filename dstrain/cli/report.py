"""`dstrain report`: one or several runs as a page for a browser."""

import time
from pathlib import Path
from typing import Annotated

import typer

from dstrain.cli.common import clean_errors
from dstrain.cli.completion import complete_run
from dstrain.cluster.console import say
from dstrain.cluster.processes import this_process
from dstrain.run_folder.find import find_starts
from dstrain.run_folder.layout import NAMES, RunFolder
from dstrain.status.inspect import inspect_status
from dstrain.status.text import describe_standing


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run folders, or a folder of them.", autocompletion=complete_run),
    ],
    output: Annotated[
        Path | None,
        typer.Option(help="The file. By default report.html, in the run folder or, of several runs, in this folder."),
    ] = None,
) -> None:
    """Write a page of one or several runs, finished or not: curves, hypotheses, what changed, data, settings.

    It is one file, which needs no network and no server. A run writes its own when it ends.
    """
    with clean_errors():
        from dstrain.run.report import find_runs, report_runs  # reads data files, which the other commands do not

        found = find_runs(runs)
        for run in found:
            find_starts(run)
        path = output or (RunFolder(found[0]).report if len(found) == 1 else NAMES.report)
        now, observer = time.time(), this_process()
        standings = {run: describe_standing(inspect_status(run, now=now, observer=observer)) for run in found}
        written = report_runs(found, output=path, standings=standings)
        say(f"{path} ({written.num_bytes / 1e6:.1f} MB): open it in a browser")
        if number := written.num_damage:
            say(f"{number} note{'' if number == 1 else 's'} about damaged or missing files: see Notes", err=True)
