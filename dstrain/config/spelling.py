"""Recipes that are written otherwise and mean the same: a key that is left out, or null, and its value written out. Pure.

Only keys whose null follows from the recipe alone; for others, such as `evaluation.max_new_tokens`, it follows from the data or
the model.
"""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dstrain.config.data import Source
from dstrain.config.schema import RunConfig

COMPRESSIONS = (".gz", ".zst")
"""Suffixes of compressed files."""
SPLITS = ("train", "eval")
KEYS = (("evaluation", "best_metric"), ("data", "rules", "unknown_token"), ("model", "add_languages"))
SOURCE_KEYS = ("format", "source_language", "target_language", "source_prefix")

KeyPath = tuple[str | int, ...]


def keep_spelling(config: RunConfig, *, as_in: Mapping[str, Any]) -> RunConfig:
    """`config` with each key that means the same as in another recipe written as there.

    A run keeps the spelling that it began with. So neither the comparison with its checkpoint nor the fingerprints of its data,
    which hold what the recipe says of a source, take a default that is written out for a change.
    """
    for path in _paths(config):
        values = config.model_dump()
        old, section = _find(as_in, path[:-1]), _find(values, path[:-1])
        if not isinstance(old, Mapping) or path[-1] not in old or old[path[-1]] == section[path[-1]]:
            continue
        section[path[-1]] = copy.deepcopy(old[path[-1]])
        try:
            respelled = RunConfig.model_validate(values)
        except ValidationError:  # of another version
            continue
        if _meaning(respelled) == _meaning(config):
            config = respelled
    return config


def format_suffix(path: Path) -> str:
    """The suffix that says the format of a file, without the dot and without that of a compression: `tsv` of `a.tsv.gz`."""
    named = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    return named.suffix.removeprefix(".").lower()


def _paths(config: RunConfig) -> Iterator[KeyPath]:
    yield from KEYS
    for split in SPLITS:
        for number, _ in enumerate(getattr(config.data, split)):
            yield from (("data", split, number, key) for key in SOURCE_KEYS)


def _find(values: Any, path: KeyPath) -> Any:
    """What lies at a path in nested mappings and sequences; None if nothing does."""
    for key in path:
        if isinstance(values, Mapping):
            values = values.get(key)
        elif isinstance(values, list | tuple) and isinstance(key, int) and key < len(values):
            values = values[key]
        else:
            return None
    return values


def _meaning(config: RunConfig) -> tuple[Any, ...]:
    """What KEYS and SOURCE_KEYS mean, defaults applied."""
    task, sources = config.task, (*config.data.train, *config.data.eval)
    of_sources = [
        (
            _format(source),
            source.source_language or task.source_language,
            source.target_language or task.target_language,
            task.source_prefix if source.source_prefix is None else source.source_prefix,
        )
        for source in sources
    ]
    return config.best_metric, config.unknown_token_rule, config.model.add_languages or {}, of_sources


def _format(source: Source) -> str | None:
    if source.format is not None or source.path is None:
        return source.format
    return "text" if source.target_paths else format_suffix(Path(source.path))
