"""`dstrain prepare`: tokenises the data of a recipe ahead of its run, on a machine without a GPU."""

import logging
import sys

from dstrain.cli.common import Overrides, RecipeArgument, clean_errors
from dstrain.cluster.console import quiet_deepspeed, say
from dstrain.config.load import load_config
from dstrain.run.cache import make_cache_dir


def prepare(
    config: RecipeArgument,
    overrides: Overrides = None,
) -> None:
    """Make the tokenizer and the token ids of a recipe in the cache, so that its run begins at once.

    Needs no GPU. If it is killed, run it again: it resumes where it was.
    """
    with clean_errors():
        recipe = load_config(config, overrides=overrides or [], check_files=True)
        cache = make_cache_dir(recipe)
        quiet_deepspeed()
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        from dstrain.run.prepare import estimate_rows, prepare_ahead  # imports torch

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns) as progress:
            # after the bar began, which sends what is printed from now on to the line above it
            logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
            logging.getLogger("dstrain").setLevel(logging.INFO)
            bar = progress.add_task("rows", total=estimate_rows(recipe))
            made = prepare_ahead(recipe, beat=lambda records: progress.advance(bar, records))
        for folder in made:
            say(folder)
        say(f"the data are ready in {cache}: start the run with the same machine.cache_dir")
