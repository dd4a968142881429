"""What a recipe needs that can be looked up without torch and without running the user's code."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec

from dstrain.config.schema import RunConfig
from dstrain.data.sources import check_first_record
from dstrain.errors import UserError
from dstrain.run.base_check import check_base
from dstrain.tasks.own_source import check_source
from dstrain.tasks.own_task import KEY, METHODS


def check_needs(config: RunConfig, *, reads_data: bool = False) -> None:
    """Look for the base run, packages and code of the user's own; with `reads_data` also for columns, in local files.

    Raises:
        UserError: lists all that is missing.
    """
    problems = []
    for look in _looks(config, reads_data=reads_data):
        try:
            look()
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))


def _looks(config: RunConfig, *, reads_data: bool) -> Iterator[Callable[[], None]]:
    yield partial(check_base, config)
    yield partial(_check_packages, config)
    for key, item in config.own_code:
        yield partial(check_source, item, key=key, methods=METHODS if key == KEY else ())
    if reads_data:
        for split, sources in (("train", config.data.train), ("eval", config.data.eval)):
            for number, source in enumerate(sources):
                yield partial(check_first_record, source, key=f"data.{split}.{number}")


def _check_packages(config: RunConfig) -> None:
    if config.model.adapter is not None and find_spec("peft") is None:
        raise UserError("model.adapter needs peft, which is not installed: pip install 'peft>=0.21,<0.22'")
