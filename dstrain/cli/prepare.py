"""`dstrain prepare`: tokenises the data of a recipe ahead of its run, on a machine without a GPU."""

from dstrain.cli.common import Overrides, RecipeArgument, clean_errors
from dstrain.cluster.console import quiet_deepspeed, say, set_up_log
from dstrain.cluster.progress import phase
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
        set_up_log()
        with phase("importing torch and transformers"):
            from dstrain.run.prepare import prepare_ahead
        for folder in prepare_ahead(recipe):
            say(folder)
        say(f"the data are ready in {cache}: start the run with the same machine.cache_dir")
