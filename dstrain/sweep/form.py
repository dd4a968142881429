"""A sweep file: its keys, what is wrong with its form, and the settings in it. Knows nothing of members, folders or runs.

A sweep file names a recipe, a folder, and either a `grid` (every combination) or a `list` of overrides.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dstrain.config.arguments import shell_command
from dstrain.config.load import MAX_CONFIG_BYTES, ConfigError, find_config, kind_of
from dstrain.config.secrets import mask_override
from dstrain.config.yaml_source import Document, KeyPath, Problem, Where, read_document, shown, write_value

KEYS = {
    "config": "a recipe file, or the name of a shipped recipe",
    "output_dir": "the folder that holds one run folder per member",
    "overrides": "keys and values for all members",
    "grid": "keys, each with a list of values: every combination is a member, the last key changes fastest",
    "list": "one mapping of keys to values per member",
}
MAX_MEMBERS = 1001
"""Slurm's own limit where a site sets no other (MaxArraySize)."""

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True)
class Setting:
    """An override, and where the sweep gives it."""

    key: str
    value: Any
    where: Where

    @property
    def text(self) -> str:
        """As typed on a command line."""
        return f"{self.key}={write_value(self.value)}"


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep file as read."""

    config: str
    """Empty if the file names no existing recipe."""
    output_dir: str
    common: tuple[Setting, ...]
    choices: tuple[tuple[Setting, ...], ...]
    """What each member sets in addition."""
    typed: tuple[str, ...] = ()
    """Overrides of the command line, for all members."""


def read_form(path: str, *, typed: Sequence[str] = ()) -> tuple[Sweep, list[Problem]]:
    """The usable part of a sweep file and of overrides on the command line, and everything that is wrong with their form.

    Raises:
        ConfigError: the file cannot be read, is not a YAML mapping, or is a recipe.
    """
    document = _read(Path(path))
    if document.problems and not document.value:
        raise ConfigError(document.problems)
    if kind_of(document) == "recipe":
        raise ConfigError([_no_sweep(path, where=document.place(()))])
    problems = list(_find_problems(document))
    # a missing recipe is one problem, not one per member
    config = "" if any(problem.path == ("config",) for problem in problems) else document.value["config"]
    output_dir = str(document.value.get("output_dir"))
    sweep = Sweep(config, output_dir, _settings(document, at=("overrides",)), _choices(document))
    wrong = {text: problem for text in typed if (problem := _typed_problem(text, sweep=sweep))}
    sweep = replace(sweep, typed=tuple(text for text in typed if text not in wrong))
    return sweep, [*problems, *wrong.values()]


def _no_sweep(name: str, *, where: Where) -> Problem:
    way_out = f"`{shell_command(['dstrain', 'check', name])}` checks it, and a sweep names it: `config: {name}`"
    return Problem(where, (), "this is a recipe, not a sweep", way_out=way_out)


def _read(path: Path) -> Document:
    try:
        content = path.read_bytes()[: MAX_CONFIG_BYTES + 1]
        if len(content) > MAX_CONFIG_BYTES:
            raise ConfigError(
                [Problem(Where(str(path), 1), (), f"larger than {MAX_CONFIG_BYTES:,} bytes: not a sweep")]
            )
        return read_document(content.decode("utf-8-sig"), file=str(path))
    except OSError as error:
        where = Where(str(path), 0)
        problem = Problem(where, (), "cannot be read", error.strerror)
        raise ConfigError([_no_sweep(str(path), where=where) if _is_recipe(str(path)) else problem]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(Where(str(path), 1), (), "not UTF-8")]) from error


def _is_recipe(name: str) -> bool:
    try:
        find_config(name)
    except ConfigError:
        return False
    return True


def _find_problems(document: Document) -> Iterator[Problem]:
    yield from document.problems
    value = document.value
    for key in value.keys() - KEYS.keys():
        close = get_close_matches(key, KEYS, n=1)
        way_out = f"did you mean `{close[0]}`?" if close else f"known here: {', '.join(KEYS)}"
        yield Problem(document.place((key,)), (key,), "unknown key", shown(value[key]), way_out)
    for key in ("config", "output_dir"):
        if (key,) not in document.broken and (not isinstance(value.get(key), str) or not value[key]):
            found = shown(value[key]) if key in value else "nothing"
            yield Problem(document.place((key,)), (key,), "must be text", found, KEYS[key])
        elif key == "config" and key in value:
            yield from _missing_recipe(value[key], where=document.place((key,)))
    if value.get("overrides") is not None:
        yield from _mapping_problems(document, at=("overrides",), refused=("output_dir",))
    given = [key for key in ("grid", "list") if value.get(key) is not None or (key,) in document.broken]
    if len(given) != 1:
        way_out = f"`grid`: {KEYS['grid']}; `list`: {KEYS['list']}; what all members share goes into `overrides`"
        where = document.place(("list",) if given else ())
        yield Problem(where, (), "give exactly one of `grid` and `list`", " and ".join(given) or "none", way_out)
    elif (given[0],) not in document.broken:
        yield from (_grid_problems if given == ["grid"] else _list_problems)(document)


def _missing_recipe(name: str, *, where: Where) -> Iterator[Problem]:
    try:
        find_config(name)
    except ConfigError as error:
        for problem in error.problems:
            yield replace(problem, where=where, path=("config",), found=shown(name))


def _grid_problems(document: Document) -> Iterator[Problem]:
    grid, at = document.value["grid"], ("grid",)
    yield from _mapping_problems(document, at=at, refused=("output_dir", "name"), may_be_empty=False)
    for key, values in grid.items() if isinstance(grid, dict) else ():
        if not isinstance(values, list) or not values:
            place = document.place((*at, key))
            yield Problem(place, (*at, key), "must be a list of values", shown(values), f"write `{key}: […]`")
    if isinstance(grid, dict):
        number = math.prod(len(values) for values in grid.values() if isinstance(values, list))
        yield from _too_many(number, where=document.place(at), at=at)


def _list_problems(document: Document) -> Iterator[Problem]:
    members, at = document.value["list"], ("list",)
    if not isinstance(members, list) or not members:
        yield Problem(document.place(at), at, f"must be {KEYS['list']}", shown(members))
        return
    for number in range(len(members)):
        yield from _mapping_problems(document, at=(*at, number), refused=("output_dir", "name"))
    yield from _too_many(len(members), where=document.place(at), at=at)


def _too_many(number: int, *, where: Where, at: KeyPath) -> Iterator[Problem]:
    if number > MAX_MEMBERS:
        yield Problem(where, at, f"makes more than {MAX_MEMBERS:,} members", f"{number:,}", "make several sweeps")


def _mapping_problems(
    document: Document, *, at: KeyPath, refused: Sequence[str], may_be_empty: bool = True
) -> Iterator[Problem]:
    """What is wrong with a mapping of override keys; the values are checked with the recipe."""
    value: Any = document.value
    for part in at:
        value = value[part]
    if at in document.broken:
        return
    if not isinstance(value, dict) or not (value or may_be_empty):
        yield Problem(document.place(at), at, "must be a mapping of keys to values", shown(value))
        return
    for key in value:
        if rule := _key_problem(key, refused=refused):
            yield Problem(document.place((*at, key)), (*at, key), rule)


def _key_problem(key: str, *, refused: Sequence[str]) -> str | None:
    if not _KEY.fullmatch(key):
        return "is not a key of a recipe; write a dotted key, such as `training.learning_rate`"
    if key not in refused:
        return None
    if key == "output_dir":
        return "every member has its own folder in the sweep's `output_dir`: change that one"
    return "names the model card and cannot be varied; each member has its own run folder"


def _typed_problem(text: str, *, sweep: Sweep) -> Problem | None:
    key, equals, _ = text.partition("=")
    where = Where(f"override `{mask_override(text)}`", 0)
    if not equals:
        return Problem(where, (), "an override is written `dotted.key=value`")
    if rule := _key_problem(key, refused=("output_dir",)):
        return Problem(where, (), rule)
    for setting in itertools.chain.from_iterable(sweep.choices):
        if f"{setting.key}.".startswith(f"{key}.") or f"{key}.".startswith(f"{setting.key}."):
            rule = f"applies to all members and would undo `{setting.key}`, which the sweep varies"
            return Problem(where, (), rule, way_out=f"change {setting.where}")
    return None


def _choices(document: Document) -> tuple[tuple[Setting, ...], ...]:
    """What each member sets; of a wrong form the readable part, at least one member that sets nothing."""
    members, grid = document.value.get("list"), document.value.get("grid")
    if isinstance(members, list) and 0 < len(members) <= MAX_MEMBERS:
        return tuple(_settings(document, at=("list", number)) for number in range(len(members)))
    columns = [
        _column(document, key=key, items=items)
        for key, items in (grid.items() if isinstance(grid, dict) else ())
        if isinstance(items, list)
    ]
    columns = [column for column in columns if column]
    return tuple(itertools.product(*columns)) if math.prod(map(len, columns)) <= MAX_MEMBERS else ((),)


def _column(document: Document, *, key: str, items: Sequence[Any]) -> list[Setting]:
    """The values of a key of a grid."""
    found = (_setting(document, key=key, value=item, at=("grid", key, place)) for place, item in enumerate(items))
    return [setting for setting in found if setting]


def _settings(document: Document, *, at: KeyPath) -> tuple[Setting, ...]:
    """The settings of a mapping of override keys."""
    value: Any = document.value
    for part in at:
        value = value.get(part) if isinstance(value, dict) else value[part]
    items = value.items() if isinstance(value, dict) else ()
    found = (_setting(document, key=key, value=item, at=(*at, key)) for key, item in items)
    return tuple(setting for setting in found if setting)


def _setting(document: Document, *, key: str, value: Any, at: KeyPath) -> Setting | None:
    """None if it cannot be typed as an override; that is a problem already."""
    is_broken = any(path[: len(at)] == at for path in document.broken)
    return None if is_broken or not _KEY.fullmatch(key) else Setting(key, value, document.place(at))
