"""`dstrain audit`: counts what is wrong with the data of a recipe, before a run."""

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from dstrain.cli.common import AsJson, Overrides, RecipeArgument, clean_errors
from dstrain.cluster.console import quiet_deepspeed, say
from dstrain.config.load import load_config
from dstrain.run.cache import make_cache_dir


def audit(
    config: RecipeArgument,
    overrides: Overrides = None,
    output: Annotated[Path | None, typer.Option(help="File to write the audit to, as JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Look at every row of a recipe's data: lengths, repeated rows, swapped columns, evaluation rows that are in training.

    Needs no GPU, and writes into the cache alone. Each start of a run makes the same audit, but for near duplicates.
    """
    with clean_errors():
        recipe = load_config(config, overrides=overrides or [], check_files=True)
        make_cache_dir(recipe)
        quiet_deepspeed()
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        from dstrain.reporting.audit import describe_for
        from dstrain.run.prepare import audit_ahead  # imports torch
        from dstrain.run_folder.audit import as_text, write_audit

        found = audit_ahead(recipe)
        if output is not None:
            write_audit(found, path=output)
        if as_json:
            say(as_text(found))
            return
        for line in describe_for(recipe, found):
            say(line)
