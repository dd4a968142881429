"""`dstrain audit`: counts what is wrong with the data of a recipe, before a run."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from dstrain.cli.common import AsJson, Overrides, RecipeArgument, clean_errors
from dstrain.cluster.console import quiet_deepspeed, say
from dstrain.cluster.exit_codes import EXIT_FAILED
from dstrain.config.load import load_config
from dstrain.run.cache import make_cache_dir


def audit(
    config: RecipeArgument,
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option(help="File to write the audit to, as JSON.")] = None,
    as_json: AsJson = False,
    strict: Annotated[bool, typer.Option("--strict", help="End with 1 if anything is an alarm.")] = False,
) -> None:
    """Look at every row of a recipe's data: lengths, repeated rows, swapped columns, evaluation rows that are in training.

    Needs no GPU, and writes into the cache alone. Each start of a run makes the same audit, but for near duplicates. Ends with 1
    if a rule of the recipe would end a run with these data.
    """
    with clean_errors():
        recipe = load_config(config, overrides=overrides or [], check_files=True)
        make_cache_dir(recipe)
        quiet_deepspeed()
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        from dstrain.reporting.audit import alarms_for, describe_for
        from dstrain.run.prepare import audit_ahead  # imports torch
        from dstrain.run_folder.audit import as_text, write_audit

        found = audit_ahead(recipe)
        if output is not None:
            write_audit(found, path=output)
        for line in [as_text(found)] if as_json else describe_for(recipe, found):
            say(line)
    if found.ending or (strict and alarms_for(recipe, found)):
        raise typer.Exit(EXIT_FAILED)
