"""The keys that the schema knows: the fields of each section, their choices, and what their docstrings say."""

import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dstrain.config.schema import RunConfig
from dstrain.config.yaml_source import KeyPath


def all_keys() -> Iterator[tuple[str, ...]]:
    """Every key path of the schema, sections before their keys; items of a list have no part of their own."""
    yield from _keys_in(RunConfig, path=())


def fields_at(path: KeyPath) -> Mapping[str, FieldInfo]:
    """The known keys of the section at `path`; empty if there is no section."""
    model: type[BaseModel] | None = RunConfig
    for key in path:
        if model is None:
            return {}
        if isinstance(key, str):
            field = model.model_fields.get(key)
            model = _section_in(field.annotation) if field else None
    return model.model_fields if model else {}


def choices_at(path: KeyPath) -> Iterator[Any]:
    """The values that the key at `path` allows, if it allows only some."""
    annotation = fields_at(path[:-1])[str(path[-1])].annotation
    for member in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(member) is typing.Literal:
            yield from typing.get_args(member)


def about(path: KeyPath) -> str | None:
    """The first sentence of the docstring of the key at `path`, without its full stop; None if it has none."""
    field = fields_at(path[:-1]).get(str(path[-1])) if path else None
    if field is None or not field.description:
        return None
    sentence = " ".join(field.description.split()).partition(". ")[0]
    return str(sentence.rstrip("."))


def _keys_in(model: type[BaseModel], *, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (*path, name)
        section = _section_in(field.annotation)
        if section:
            yield from _keys_in(section, path=(*path, name))


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section inside `annotation`: itself, an optional one, or the item of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (types.UnionType, typing.Union, tuple):
        found = [_section_in(member) for member in typing.get_args(annotation)]
        return next((section for section in found if section), None)
    return None
