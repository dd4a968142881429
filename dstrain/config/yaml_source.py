"""YAML text as plain values that remember file and line. Knows YAML's traps; knows nothing of what the keys mean."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from dstrain.config.secrets import mask_override

KeyPath = tuple[str | int, ...]

_EXPONENT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$")
_OCTAL = re.compile(r"^[-+]?0[0-9_]+$")
_FLOAT_TAG = "tag:yaml.org,2002:float"
_HALF_LETTER = re.compile("[\ud800-\udfff]")
_QUOTE = "quote it"
_BROKEN = object()

MAX_VALUES = 10_000
"""Values in a document. Those behind an alias count each time, because a few lines of aliases can stand for a billion."""
MAX_DEPTH = 50
"""Levels of nested lists and mappings."""
MAX_INT_BITS = 64
MAX_SHOWN = 60
"""Characters of a value in a message."""
MAX_OVERRIDE = 200
"""Characters of an override in a message."""


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader that also reads `3e-4` as a number (in YAML 1.1 it is text)."""


class Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper that quotes every text which Loader would read as a number."""


def _represent_text(dumper: Dumper, text: str) -> yaml.Node:
    # PyYAML writes these as plain line breaks in every style but this one
    style = '"' if any(line_break in text for line_break in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, _represent_text)
Loader.add_implicit_resolver(_FLOAT_TAG, _EXPONENT, list("-+.0123456789"))
Dumper.add_implicit_resolver(_FLOAT_TAG, _EXPONENT, list("-+.0123456789"))


@dataclass(frozen=True, slots=True, order=True)
class Where:
    """Where a value was written; line 0 belongs to an override on the command line."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: printed on one line as `file:line: dotted.key: rule; found VALUE; way out`."""

    where: Where
    path: KeyPath
    rule: str
    found: str | None = None
    way_out: str | None = None

    def __str__(self) -> str:
        parts = [self.rule, f"found {self.found}" if self.found is not None else None, self.way_out]
        prefix = f"{self.where}: {dotted(self.path)}: " if self.path else f"{self.where}: "
        return escaped(prefix + "; ".join(part for part in parts if part))


@dataclass(slots=True)
class Document:
    """A tree of plain values, where each key path was written (the root is `()`), and what was wrong with the text.

    The values at `broken` were refused: their keys are absent, and list items are null.
    """

    value: dict[str, Any]
    where: dict[KeyPath, Where]
    problems: list[Problem] = field(default_factory=list)
    broken: set[KeyPath] = field(default_factory=set)

    def place(self, path: KeyPath) -> Where:
        """Where `path`, or the nearest section around it, was written."""
        while path not in self.where:
            path = path[:-1]
        return self.where[path]


def dotted(path: KeyPath) -> str:
    """`("data", "train", 0)` as `data.train.0`."""
    return ".".join(map(str, path))


def escaped(text: str) -> str:
    """A text on one line, with escapes for what cannot be printed, such as line breaks."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def shown(value: Any) -> str:
    """`value` as a user would write it, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return _cut(text)


def write_value(value: Any) -> str:
    """A value as typed after `key=`: read as YAML it is equal to `value`."""
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    text = yaml.dump(value, Dumper=Dumper, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "…"


def _compose(text: str) -> yaml.Node | None:
    """The nodes of a text; every failure of PyYAML becomes a YAMLError."""
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=Loader)
    except RecursionError as error:
        raise yaml.YAMLError("lists or mappings are nested too deep") from error
    except (ValueError, OverflowError) as error:  # an escape beyond Unicode, a version of thousands of digits
        raise yaml.YAMLError(f"an invalid escape or number ({error})") from error
    return node


def read_document(text: str, *, file: str) -> Document:
    """The document in `text`. A text that is not a YAML mapping becomes an empty value and a problem at the root."""
    root = Where(file, 1)
    reader = _Reader(place=lambda node: Where(file, node.start_mark.line + 1))
    try:
        node = _compose(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        detail = ", ".join(part for part in (error.context, error.problem) if part)
        return Document({}, {(): root}, [Problem(Where(file, line), (), f"not valid YAML: {detail}")])
    except yaml.YAMLError as error:
        return Document({}, {(): root}, [Problem(root, (), f"not valid YAML: {error}")])
    if not isinstance(node, yaml.MappingNode):
        found = "nothing" if node is None else "no mapping"
        return Document({}, {(): root}, [Problem(root, (), "a configuration is a mapping of keys to values", found)])
    value = reader.read(node, path=())
    if reader.num_values > MAX_VALUES:
        rule = f"stands for more than {MAX_VALUES:,} values"
        return Document({}, {(): root}, [Problem(root, (), rule, way_out="this is not a configuration")])
    reader.where[()] = root
    return Document(value, reader.where, reader.problems, reader.broken)


def merge_documents(base: Document, *, child: Document) -> Document:
    """`base` under `child`: mappings are merged, everything else is replaced, values keep their own file and line."""
    replaced: set[KeyPath] = set()
    value = _merge(base.value, child.value, path=(), replaced=replaced)
    # in one pass, because both files may have thousands of keys
    where = {
        path: place
        for path, place in base.where.items()
        if not any(path[:length] in replaced for length in range(1, len(path) + 1))
    }
    return Document(value, where | child.where, base.problems + child.problems, base.broken | child.broken)


def apply_override(document: Document, *, text: str) -> None:
    """Sets one value from `dotted.key=value`, in place; the value is read as YAML. What is wrong with it becomes problems."""
    typed = escaped(mask_override(text))
    where = Where(f"override `{typed if len(typed) <= MAX_OVERRIDE else typed[: MAX_OVERRIDE - 1] + '…'}`", 0)
    key, equals, written = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts) or len(parts) > MAX_DEPTH:
        document.problems.append(Problem(where, (), "an override is written `dotted.key=value`"))
        return
    if not written.strip():
        way_out = f"give one; `{key.strip()}=null` unsets the key"
        document.problems.append(Problem(where, (), "has no value", way_out=way_out))
        return
    reader = _Reader(place=lambda node: where)
    path: KeyPath = ()
    parent: Any = document.value
    for part in parts[:-1]:
        step = _step(parent, part=part, path=path, where=where, problems=document.problems)
        if step is None:
            return
        path = (*path, step)
        if isinstance(parent, dict) and parent.get(step) is None:
            parent[step] = {}
            document.where[path] = where
        parent = parent[step]
    last = _step(parent, part=parts[-1], path=path, where=where, problems=document.problems)
    if last is None:
        return
    path = (*path, last)
    value = _read_written(written, reader=reader, path=path, where=where)
    document.problems += reader.problems
    document.broken |= reader.broken
    if value is not _BROKEN:
        _forget(document.where, path=path)
        document.where.update(reader.where)
        document.where[path] = where
        parent[last] = value


def _read_written(written: str, *, reader: "_Reader", path: KeyPath, where: Where) -> Any:
    try:
        node = _compose(written)
    except yaml.YAMLError:
        reader.problems.append(Problem(where, path, "the value is not valid YAML", _cut(written), _QUOTE))
        reader.broken.add(path)
        return _BROKEN
    if isinstance(node, yaml.ScalarNode) and node.value == "~" and node.style is None:
        rule = "YAML reads a plain `~` as null, and nothing else would say so"
        way_out = f"write the full path, or `{dotted(path)}=null` to unset the key"
        reader.problems.append(Problem(where, path, rule, way_out=way_out))
        reader.broken.add(path)
        return _BROKEN
    value = None if node is None else reader.read(node, path=path)
    if reader.num_values > MAX_VALUES:
        reader.problems[:] = [Problem(where, path, f"stands for more than {MAX_VALUES:,} values")]
        reader.broken.add(path)
        return _BROKEN
    return value


def _step(parent: Any, *, part: str, path: KeyPath, where: Where, problems: list[Problem]) -> str | int | None:
    """The key or index that `part` means inside `parent`; None, and a problem, if there is none."""
    if isinstance(parent, dict):
        return part
    if not isinstance(parent, list):
        problems.append(Problem(where, path, f"has no key `{part}` inside: it is a plain value", shown(parent)))
    elif part.isdecimal() and len(part) < 10 and int(part) < len(parent):
        return int(part)
    else:
        rule = f"is a list of {len(parent)}, numbered from 0; it has no item `{part}`"
        problems.append(Problem(where, path, rule, way_out=f"replace the whole list: `{dotted(path)}=[…]`"))
    return None


def _merge(base: dict[str, Any], child: dict[str, Any], *, path: KeyPath, replaced: set[KeyPath]) -> dict[str, Any]:
    """Both mappings as one; the paths at which the child's value replaces the base's are added to `replaced`."""
    result = dict(base)
    for key, value in child.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            result[key] = _merge(base[key], value, path=here, replaced=replaced)
        else:
            replaced.add(here)
            result[key] = value
    return result


def _whole(text: str) -> str:
    """A text as it can be printed: YAML can escape half of a surrogate pair."""
    return text.encode("utf-8", errors="backslashreplace").decode()


def _forget(where: dict[KeyPath, Where], *, path: KeyPath) -> None:
    for known in [known for known in where if known[: len(path)] == path]:
        del where[known]


class _Reader:
    """Walks the nodes of one text and collects values, their lines and problems."""

    def __init__(self, *, place: Callable[[yaml.Node], Where]) -> None:
        self.place = place
        self.where: dict[KeyPath, Where] = {}
        self.problems: list[Problem] = []
        self.broken: set[KeyPath] = set()
        self.open: list[yaml.Node] = []
        self.num_values = 0
        self.scalars = yaml.constructor.SafeConstructor()

    def read(self, node: yaml.Node, *, path: KeyPath) -> Any:
        """The value of `node`, or _BROKEN after noting a problem; beyond MAX_VALUES the caller notes it."""
        self.num_values += 1
        if self.num_values > MAX_VALUES:
            return _BROKEN
        self.where.setdefault(path, self.place(node))
        if node in self.open:
            return self.refuse(node, path=path, rule="an alias that contains itself")
        if len(self.open) == MAX_DEPTH:
            return self.refuse(node, path=path, rule=f"nested deeper than {MAX_DEPTH} lists and mappings")
        self.open.append(node)
        try:
            if isinstance(node, yaml.MappingNode) and node.tag.endswith(":map"):
                return self.mapping(node, path=path)
            if isinstance(node, yaml.SequenceNode) and node.tag.endswith(":seq"):
                items = [self.read(item, path=(*path, index)) for index, item in enumerate(node.value)]
                # a place-holder keeps the other items' numbers; the problem is noted already
                return [None if item is _BROKEN else item for item in items]
            if isinstance(node, yaml.ScalarNode):
                return self.scalar(node, path=path)
            return self.refuse(node, path=path, rule="this tag is not supported", found=node.tag)
        finally:
            self.open.pop()

    def mapping(self, node: yaml.MappingNode, *, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first: dict[str, yaml.Node] = {}
        for key_node, value_node in node.value:
            written = _whole(str(key_node.value)) if isinstance(key_node, yaml.ScalarNode) else "a list or mapping"
            here = (*path, written)
            if key_node.tag.endswith(":merge"):
                self.refuse(key_node, path=here, rule="merge keys are not supported", way_out="use `extends:`")
            elif not key_node.tag.endswith(":str"):
                self.refuse(key_node, path=here, rule="a key must be text", found=f"`{written}`", way_out=_QUOTE)
            elif written in first:
                rule = f"given twice, first at {self.place(first[written])}"
                self.problems.append(Problem(self.place(key_node), here, rule, way_out="remove one of them"))
            else:
                first[written] = key_node
                self.where[here] = self.place(key_node)
                value = self.read(value_node, path=here)
                if value is not _BROKEN:
                    result[written] = value
        return result

    def scalar(self, node: yaml.ScalarNode, *, path: KeyPath) -> Any:
        written: str = node.value
        kind = node.tag.rpartition(":")[2]
        found = f"`{_cut(_whole(written))}`"
        if _HALF_LETTER.search(written):
            return self.refuse(node, path=path, rule="half of a surrogate pair is not a character", found=found)
        if kind == "str":
            return written
        if kind == "bool" and written.lower() not in ("true", "false"):
            rule = f"YAML reads a plain `{written}` as {str(written.lower() in ('yes', 'on')).lower()}"
            return self.refuse(node, path=path, rule=rule, found=found, way_out=f"{_QUOTE}, or write true or false")
        if kind in ("int", "float") and ":" in written:
            rule = "YAML reads this as a number in base 60"
            return self.refuse(node, path=path, rule=rule, found=found, way_out=_QUOTE)
        if kind == "int" and _OCTAL.match(written):
            rule = "YAML reads a number with a leading 0 in base 8"
            return self.refuse(node, path=path, rule=rule, found=found, way_out=f"{_QUOTE}, or remove the 0")
        if kind == "timestamp":
            return self.refuse(node, path=path, rule="YAML reads this as a date", found=found, way_out=_QUOTE)
        if kind not in ("null", "bool", "int", "float"):
            return self.refuse(node, path=path, rule="this tag is not supported", found=node.tag)
        try:
            value = self.scalars.construct_object(node)
        except (ValueError, LookupError, OverflowError, yaml.YAMLError):  # a tag that does not fit, such as `!!int x`
            return self.refuse(node, path=path, rule=f"is not a valid {kind}", found=found)
        if isinstance(value, float) and not math.isfinite(value):
            return self.refuse(node, path=path, rule="must be a finite number", found=found)
        if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
            return self.refuse(node, path=path, rule=f"must fit into {MAX_INT_BITS} bits", found=found)
        return value

    def refuse(
        self, node: yaml.Node, *, path: KeyPath, rule: str, found: str | None = None, way_out: str | None = None
    ) -> Any:
        self.problems.append(Problem(self.place(node), path, rule, found, way_out))
        self.broken.add(path)
        return _BROKEN
