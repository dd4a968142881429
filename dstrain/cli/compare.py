"""`dstrain compare`: runs side by side."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from dstrain.cli.common import AsJson
from dstrain.cli.completion import complete_run
from dstrain.cluster.console import describe, say
from dstrain.cluster.exit_codes import EXIT_FAILED
from dstrain.cluster.processes import this_process
from dstrain.errors import UserError
from dstrain.reporting import comparison, differences
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import load_record
from dstrain.run_folder.rows import EvalRow
from dstrain.status.inspect import inspect_status


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.", autocompletion=complete_run)],
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table, for a page.")] = False,
) -> None:
    """Show runs side by side, with the recipe keys in which they differ; exit code 1 if one is not a run.

    The best comes first, if the runs have the same metric and evaluation rows; otherwise they stay in the order given. Below the
    table stands by how much each run differs from the first one given, if their best evaluations have the same references.
    """
    found: list[comparison.Compared] = []
    evaluated: list[tuple[str, RunFolder, EvalRow | None]] = []
    for run in runs:
        try:
            record = load_record(run)
        except (UserError, OSError, RecursionError) as error:
            say(f"{run} is skipped: {describe(error).removeprefix(f'{run}: ')}", err=True)
        else:
            state = inspect_status(run, now=time.time(), observer=this_process()).state
            found.append(comparison.describe_run(record, run=str(run), state=state))
            evaluated.append((str(run), RunFolder(run), record.best))
    against = _compare(evaluated) if len(evaluated) > 1 else []
    if as_json:
        by_run = differences.as_json(against)
        rows = [row | {"against": by_run.get(row["run"])} for row in comparison.as_json(found)]
        say(json.dumps(rows, indent=1))
    elif as_markdown and found:
        say(comparison.markdown_table(found))
        if tables := differences.markdown_tables(against):
            say(f"\n{tables}")
    elif found:
        # a pipe or a file has no width: every run stays one line, for `grep` and `less -S`
        width = shutil.get_terminal_size(fallback=(sys.maxsize, 0)).columns
        say(comparison.text_table(found, width=width))
        if tables := differences.text_tables(against):
            say(f"\n{tables}")
    if reason := comparison.why_unranked(found):
        say(reason, err=True)
    for reason in differences.reasons(against):
        say(reason, err=True)
    raise typer.Exit(0 if len(found) == len(runs) else EXIT_FAILED)


def _compare(evaluated: list[tuple[str, RunFolder, EvalRow | None]]) -> list[differences.Against]:
    from dstrain.run.differences import Evaluated, compare_with_first  # here, so that one run is shown without numpy

    return compare_with_first([Evaluated(*each) for each in evaluated])
