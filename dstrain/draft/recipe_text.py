"""A recipe as commented YAML. Knows how lines are written, and nothing of what a recipe holds.

What strangers wrote, such as a name on a model card, becomes a quoted value or a comment of one line, and never a key.
"""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dstrain.config.secrets import mask
from dstrain.config.yaml_source import write_value

WIDTH = 120
"""Longest line, but for a value that is longer by itself."""
QUESTION = "question: "
"""Begins the comment of a value that only the user can know."""

Origin = Literal["stated", "default", "guess", "question", "ours"]
"""Where a value comes from: `stated` in what was read, a `default` of the program that wrote it, a `guess` from evidence, a
`question` that nothing answers, or `ours`."""


@dataclass(frozen=True, slots=True)
class Line:
    """One key of a recipe with its comment. The value is a plain value, a section of lines, or a list of sections."""

    key: str
    value: Any
    why: str = ""
    origin: Origin = "ours"

    @property
    def comment(self) -> str:
        """The comment on one line."""
        return one_line(f"{QUESTION if self.origin == 'question' else ''}{self.why}")


@dataclass(frozen=True, slots=True)
class Section:
    """The lines below a key."""

    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Items:
    """A list, each of whose items is a section."""

    items: tuple[Section, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """A list of mappings, each written on one line."""

    rows: tuple[dict[str, Any], ...]


def section(key: str, *lines: Line, why: str) -> Line:
    """A key with lines below it."""
    return Line(key, Section(lines), why)


def write_recipe(lines: Sequence[Line], *, head: Sequence[str]) -> str:
    """The text of a recipe: `head` as comments, then the lines. Sections are set apart by an empty line."""
    text = [f"# {part}".rstrip() for line in head for part in textwrap.wrap(one_line(line), WIDTH - 2) or [""]]
    is_apart = True
    for line in lines:
        is_section = isinstance(line.value, Section)
        text += [""] if is_apart or is_section else []
        text += _written(line, indent="")
        is_apart = is_section
    return "\n".join(text) + "\n"


def all_lines(lines: Sequence[Line], *, at: str = "") -> Iterator[tuple[str, Line]]:
    """Every line that holds a value, with its dotted key; items of a list are numbered from 0."""
    for line in lines:
        key = f"{at}{line.key}"
        if isinstance(line.value, Section):
            yield from all_lines(line.value.lines, at=f"{key}.")
        elif isinstance(line.value, Items):
            for number, item in enumerate(line.value.items):
                yield from all_lines(item.lines, at=f"{key}.{number}.")
        else:
            yield key, line


def one_line(text: str) -> str:
    """`text` on one line: white space collapsed, nothing that is not drawn, secrets masked."""
    return mask(" ".join("".join(char if char.isprintable() else " " for char in text).split()))


def _written(line: Line, *, indent: str) -> list[str]:
    value = line.value
    if isinstance(value, Section):
        return [
            *_commented(f"{indent}{line.key}:", line.comment, indent=indent),
            *(text for child in value.lines for text in _written(child, indent=f"{indent}  ")),
        ]
    if isinstance(value, Items):
        items = [text for item in value.items for text in _item(item, indent=f"{indent}  ")]
        return [*_commented(f"{indent}{line.key}:", line.comment, indent=indent), *items]
    if isinstance(value, Rows):
        rows = [f"{indent}  - {_flow(row)}" for row in value.rows]
        return [*_commented(f"{indent}{line.key}:", line.comment, indent=indent), *rows]
    return _commented(f"{indent}{line.key}: {_flow(value)}", line.comment, indent=indent)


def _flow(value: Any) -> str:
    """A value on one line, the keys of mappings in their order."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{write_value(key)}: {_flow(each)}" for key, each in value.items()) + "}"
    return write_value(value)


def _item(item: Section, *, indent: str) -> list[str]:
    lines = [text for child in item.lines for text in _written(child, indent=f"{indent}  ")]
    first = next(number for number, text in enumerate(lines) if not text.lstrip().startswith("#"))
    above = [f"{indent}{text.lstrip()}" for text in lines[:first]]
    return [*above, f"{indent}- {lines[first].lstrip()}", *lines[first + 1 :]]


def _commented(text: str, comment: str, *, indent: str) -> list[str]:
    """The text with its comment behind it, or above it where both do not fit on a line."""
    if not comment:
        return [text]
    if len(text) + len(comment) + 4 <= WIDTH:
        return [f"{text}  # {comment}"]
    wrapped = textwrap.wrap(comment, WIDTH - len(indent) - 2, break_on_hyphens=False)
    return [*(f"{indent}# {part}" for part in wrapped), text]
