"""What a shell completes: recipes, run folders, keys of a recipe and their values. Reads names of files, and no torch.

A shell adds a space behind the only word that is offered. So a key comes with an example of its value, and a folder with what
is in it: there is more than one word then, and their common beginning is completed.
"""

import json
import os
import re
import typing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps

import typer

from dstrain.config.shipped import shipped_recipes
from dstrain.config.vocabulary import NAME, all_keys, choices_at, default_at, fields_at
from dstrain.run_folder.layout import NAMES

MAX_ENTRIES = 1000
"""Most names of files and folders that are looked at: a slow file system must not keep a prompt waiting."""
RECIPE_DEPTH, RUN_DEPTH = 2, 3
"""How many folders deep recipes and run folders are searched; members of a sweep lie at the depth of three."""
PLACEHOLDER = "VALUE"
"""Stands for the value of a key that has neither a default nor choices."""

Words = list[str]
Find = Callable[..., Words]


def silent(find: Find) -> Find:
    """`find`, which offers nothing where it fails: a message would land in the command that is being typed."""

    @wraps(find)
    def find_silently(*arguments: object, **named: object) -> Words:
        try:
            return find(*arguments, **named)
        except Exception:
            return []

    return find_silently


@silent
def complete_recipe(incomplete: str) -> Words:
    """Names of shipped recipes, and YAML files in and below the folder that was typed."""
    files = _find_below(incomplete, depth=RECIPE_DEPTH, is_wanted=_is_recipe)
    return [*(name for name in shipped_recipes() if name.startswith(incomplete)), *files]


@silent
def complete_run(incomplete: str) -> Words:
    """Run folders in and below the folder that was typed."""
    return list(_find_below(incomplete, depth=RUN_DEPTH, is_wanted=_is_run))


@silent
def complete_key(incomplete: str) -> Words:
    """Keys of a recipe, one section after the other."""
    return offer_keys(incomplete, keys=list_keys(incomplete))


@silent
def complete_override(ctx: typer.Context, incomplete: str) -> Words:
    """`key=` and, once a key is complete, its values."""
    return offer_override(incomplete, given=_given(ctx))


@silent
def complete_recipe_or_override(ctx: typer.Context, incomplete: str) -> Words:
    """A recipe; after a recipe, another one or an override."""
    given = _given(ctx)
    return [*(complete_recipe(incomplete)), *(offer_override(incomplete, given=given) if given else [])]


def complete_choice(choices: Callable[[], Iterable[str]]) -> Callable[[str], Words]:
    """Completes one of some words, which are looked for only when a shell asks."""

    @silent
    def complete(incomplete: str) -> Words:
        return [choice for choice in choices() if choice.startswith(incomplete)]

    return complete


def offer_override(typed: str, *, given: Sequence[str]) -> Words:
    """`key=VALUE` for what was typed of it, after the words `given`. bash gives `key`, `=` and the value as three words."""
    before = next((word for word in reversed(given) if word != "="), "")
    if before in list_keys(before) and (given[-1] == "=" or not typed):
        return [value for value in _values(before) if value.startswith(typed)]
    key, sign, _ = typed.partition("=")
    if not sign:
        offered = offer_keys(typed, keys=[f"{name}=" for name in list_keys(typed)])
        if len(offered) != 1:
            return offered
        key = offered[0].removesuffix("=")
    values = _values(key)
    return [] if sign and not values else [f"{key}=", *(f"{key}={value}" for value in values or [PLACEHOLDER])]


def offer_keys(typed: str, *, keys: Sequence[str]) -> Words:
    """Of the keys that begin as was typed each up to its next dot; if only one section is left, its keys."""
    matching = (key for key in keys if key.startswith(typed))
    ends = ((key, key.find(".", len(typed)) + 1) for key in matching)
    offered = list(dict.fromkeys(key[:end] if end else key for key, end in ends))
    if len(offered) == 1 and offered[0].endswith("."):
        return offer_keys(offered[0], keys=keys)
    return offered


def list_keys(typed: str) -> Words:
    """The keys that have a value, with dots, items of a list with the number that was typed, else 0."""
    number = re.search(r"\.(\d+)(?:\.|$)", typed)
    paths = [path for path in all_keys() if NAME not in path]
    sections = {path[:-1] for path in paths}
    return [_dotted(path, number=number[1] if number else "0") for path in paths if path not in sections]


def _dotted(path: tuple[str, ...], *, number: str) -> str:
    parts = [
        f"{key}.{number}" if length < len(path) and _holds_list(path[:length]) else key
        for length, key in enumerate(path, start=1)
    ]
    return ".".join(parts)


def _holds_list(path: tuple[str, ...]) -> bool:
    annotation = fields_at(path[:-1])[path[-1]].annotation
    return any(typing.get_origin(member) is tuple for member in (annotation, *typing.get_args(annotation)))


def _values(key: str) -> Words:
    """The values that a key allows if it allows only some, else its default; as they are written on a command line."""
    path = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
    field = fields_at(path[:-1]).get(str(path[-1]))
    if field is None:
        return []
    choices = [*choices_at(path)]
    if bool in (field.annotation, *typing.get_args(field.annotation)):
        choices += [True, False]
    default = default_at(path)
    return [_written(value) for value in choices or ([] if default is ... else [default])]


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _given(ctx: typer.Context) -> Words:
    """The words that were given to arguments that take several."""
    values = (value for value in ctx.params.values() if isinstance(value, list | tuple))
    return [str(word) for value in values for word in value]


def _find_below(typed: str, *, depth: int, is_wanted: Callable[[os.DirEntry[str]], bool]) -> Iterator[str]:
    """Paths, written as the beginning was typed, of what is wanted; the nearest first. Not inside what is wanted."""
    head = typed[: typed.rfind("/") + 1]
    folders, left_to_see = deque([(head, depth)]), MAX_ENTRIES
    while folders and left_to_see:
        folder, left = folders.popleft()
        for entry in _list(folder)[:left_to_see]:
            left_to_see -= 1
            path = folder + entry.name
            if not path.startswith(typed) or (entry.name.startswith(".") and not typed[len(head) :].startswith(".")):
                continue
            if is_wanted(entry):
                yield path
            elif left > 1 and entry.is_dir():
                folders.append((f"{path}/", left - 1))


def _list(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _is_recipe(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith((".yaml", ".yml")) and entry.is_file()


def _is_run(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and os.path.isfile(os.path.join(entry.path, NAMES.config.name))
