"""The keys that the schema knows: the fields of each section, their choices, and what their docstrings say."""

import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from dstrain.config.schema import RunConfig
from dstrain.config.yaml_source import KeyPath, dotted

NAME = "NAME"
"""Stands for a name that the user gives to a section, as in `evaluation.external.NAME.command`."""

_SENTENCE_END = re.compile(r"(?<!\bal)(?<!\bcf)(?<!\bvs)(?<!\be\.g)(?<!\bi\.e)\. ")
_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


def all_keys() -> Iterator[tuple[str, ...]]:
    """Every key path of the schema, sections before their keys; items of a list have no part of their own."""
    yield from _keys_in(RunConfig, path=())


def fields_at(path: KeyPath) -> Mapping[str, FieldInfo]:
    """The known keys of the section at `path`; empty if there is no section, or if its keys are names of the user's."""
    model: type[BaseModel] | None = RunConfig
    is_named = False
    for key in path:
        if model is None:
            return {}
        if is_named:
            is_named = False
        elif isinstance(key, str):
            field = model.model_fields.get(key)
            model = _section_in(field.annotation) if field else None
            is_named = field is not None and _holds_names(field.annotation)
    return model.model_fields if model and not is_named else {}


def general_path(path: KeyPath) -> KeyPath:
    """The path with 0 for every number of an item, and `NAME` for every name that the user has given to a section."""
    general: KeyPath = ()
    for length, key in enumerate(path):
        above = fields_at(path[: length - 1]) if length else {}
        field = above.get(str(path[length - 1])) if length else None
        is_name = field is not None and _holds_names(field.annotation)
        general = (*general, NAME if is_name else 0 if isinstance(key, int) else key)
    return general


def choices_at(path: KeyPath) -> Iterator[Any]:
    """The values that the key at `path` allows, if it allows only some."""
    annotation = fields_at(path[:-1])[str(path[-1])].annotation
    for member in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(member) is typing.Literal:
            yield from typing.get_args(member)


def default_at(path: KeyPath) -> Any:
    """The default of the key at `path` as a JSON value; `...` if it has none."""
    field = fields_at(path[:-1]).get(str(path[-1])) if path else None
    if field is None or field.is_required():
        return ...
    return to_jsonable_python(field.get_default(call_default_factory=True))


def about(path: KeyPath) -> str | None:
    """The first sentence of the docstring of the key at `path`, without its full stop; None if it has none."""
    field = fields_at(path[:-1]).get(str(path[-1])) if path else None
    if field is None or not field.description:
        return None
    return str(_SENTENCE_END.split(without_links(field.description), maxsplit=1)[0].rstrip("."))


def without_links(text: str) -> str:
    """A text of docs/recipes.md on one line, with each link as its words and its address in a clone."""
    return _LINK.sub(_plain_link, " ".join(text.split()))


def _plain_link(link: re.Match[str]) -> str:
    words, address = link.groups()
    whole = address if "://" in address else f"docs/{'recipes.md' if address.startswith('#') else ''}{address}"
    return whole if words in address else f"{words} ({whole})"


def is_key(text: str) -> bool:
    """Whether a text is the dotted name of a key."""
    *section, last = _path(text)
    return last in fields_at(tuple(section))


def is_section(key: str) -> bool:
    """Whether a key has keys of its own: in itself, in each of its items, or below names of the user's."""
    return bool(first_inside(key))


def is_list(key: str) -> bool:
    """Whether a key is a list of sections."""
    return is_section(key) and typing.get_origin(field_of(key).annotation) is tuple


def first_inside(key: str) -> str:
    """The first key of a section, of the first item of a list, or below a name; empty if the key has none."""
    if not is_key(key):
        return ""
    item = f"{key}.0" if typing.get_origin(field_of(key).annotation) is tuple else key
    inner = [f"{below}.{name}" for below in (item, f"{key}.{NAME}") for name in fields_at(_path(below))]
    return inner[0] if inner else ""


def field_of(key: str) -> FieldInfo:
    """The field of a key, by its dotted name; raises KeyError if there is none."""
    *section, last = _path(key)
    return fields_at(tuple(section))[str(last)]


def find_keys(name: str) -> list[KeyPath]:
    """The keys that end with a name, such as `batch_size` or `train.path`; none if it is no end of any."""
    parts = tuple(name.split("."))
    return [path for path in all_keys() if path[-len(parts) :] == parts]


def find_abbreviated(name: str) -> list[str]:
    """The one key whose last part has the letters of a name in their order, and begins likewise: `lrate` is a learning rate."""
    letters = re.compile(".*".join(map(re.escape, name)))
    found = [dotted(path) for path in all_keys() if len(name) > 2 and letters.match(path[-1])]
    return found if len(found) == 1 else []


def _path(key: str) -> KeyPath:
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))


def _keys_in(model: type[BaseModel], *, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*path, name)
        section = _section_in(field.annotation)
        if section:
            yield from _keys_in(section, path=(*path, name, NAME) if _holds_names(field.annotation) else (*path, name))


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section inside `annotation`: itself, an optional one, the item of a list, or the value of a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (types.UnionType, typing.Union, tuple, dict, typing.Annotated):
        found = [_section_in(member) for member in typing.get_args(annotation)]
        return next((section for section in found if section), None)
    return None


def _holds_names(annotation: Any) -> bool:
    """Whether it is a mapping from names of the user's to sections."""
    if typing.get_origin(annotation) is dict:
        return _section_in(annotation) is not None
    return any(_holds_names(member) for member in typing.get_args(annotation))
