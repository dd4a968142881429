"""Everything that is wrong with a document, each problem with its file and line. Reads no files and raises nothing.

Pydantic stops before the cross-field checks when a field is wrong. So wrong values are replaced by harmless ones and
the document is validated again, until no new problem is found. Conflicts with a replaced value are not reported.
"""

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dstrain.config.deepspeed_keys import REFUSED_KEYS
from dstrain.config.schema import RunConfig
from dstrain.config.secrets import WAY_OUT, holds_secret, mask, mask_value, names_secret
from dstrain.config.section import ConflictError
from dstrain.config.trainer_names import ELSEWHERE, MEANT
from dstrain.config.vocabulary import NAME, about, all_keys, choices_at, fields_at, find_abbreviated, general_path
from dstrain.config.yaml_source import MAX_SHOWN, Document, KeyPath, Problem, Where, dotted, shown

_MAX_ROUNDS = 20
_ROW = {"demo": "translation"}
HARMLESS: Mapping[KeyPath, Any] = {
    ("name",): "x",
    ("model",): {"name": "x"},
    ("model", "name"): "x",
    ("model", "scratch", "architecture"): "marian",
    ("task",): {"kind": "translation"},
    ("task", "kind"): "translation",
    ("data",): {"train": [_ROW], "eval": [_ROW]},
    ("data", "train"): [_ROW],
    ("data", "eval"): [_ROW],
    ("data", "train", 0): _ROW,
    ("data", "eval", 0): _ROW,
    ("data", "train", 0, "demo"): "translation",
    ("data", "eval", 0, "demo"): "translation",
    ("training",): {"batch_size": 1, "max_steps": 1, "learning_rate": 1.0},
    ("training", "batch_size"): 1,
    ("training", "max_steps"): 1,
    ("training", "learning_rate"): 1.0,
    ("training", "early_stopping", "patience"): 1,
    ("card", "published", "steps", 0): {"step": 1},
    ("card", "published", "steps", 0, "step"): 1,
    ("evaluation", "external", NAME): {"command": ["x", "{hypotheses}"]},
    ("evaluation", "external", NAME, "command"): ["x", "{hypotheses}"],
}
"""Replacements for wrong or missing values without a default; every list item uses the entry of item 0, every section with a
name of the user's that of `NAME`. A new required key needs an entry here, which a test checks."""

FREE_TEXT = (("source_prefix",),)
"""Keys whose text is part of the rows, and may have any character."""
PARAGRAPHS = (("intended_use",),)
"""Keys whose text may have line breaks."""
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, line separators, and those that change the direction of writing."""

_WANTED = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a section of keys",
    "model_type": "must be a section of keys",
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be greater than {gt:g}",
    "less_than_equal": "must be at most {le:,.10g}",
    "less_than": "must be less than {lt:g}",
    "string_too_long": "must have at most {max_length} characters",
    "literal_error": "must be {expected}",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
}
_ONE_VALUE = {
    "target_column": "one column has the targets; several references of an evaluation row are a list in its cell (JSONL, "
    "Parquet, the hub), or files (`target_path`)",
}
"""Keys for which a list is a likely mistake, and what to write instead."""

OTHER_NAMES = {"gpu": "cuda", "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32"}
"""What other tools call a value of ours; by its spelling alone `gpu` would be taken for `cpu`."""


def find_problems(document: Document) -> tuple[RunConfig | None, list[Problem]]:
    """The configuration in `document`, or None and everything that is wrong with it."""
    refused = list(_refused_texts(document.value, document=document))
    problems = document.problems + refused
    value = deepcopy(document.value)
    replaced: set[KeyPath] = set()
    for path in [*document.broken, *(problem.path for problem in refused)]:
        _replace(value, path=path, replaced=replaced)
    for _ in range(_MAX_ROUNDS):
        try:
            config = RunConfig.model_validate(value)
        except ValidationError as error:
            before = len(replaced)
            found = list(_from_pydantic(error, document=document, value=value))
            problems += [
                problem
                for involved, problem in found
                if not any(_is_within(path, other) for path in involved for other in replaced)
            ]
            for involved, _ in found:
                for path in involved:
                    _replace(value, path=path, replaced=replaced)
            if len(replaced) == before:
                break
        else:
            if not problems:
                return config, []
            break
    return None, problems


def _refused_texts(value: Any, *, document: Document, path: KeyPath = ()) -> Iterator[Problem]:
    """Texts and keys that hold a secret, or that a terminal, a log or a card would not show as they are."""
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _refused_texts(key, document=document, path=path)
            yield from _refused_texts(child, document=document, path=(*path, key))
    elif isinstance(value, str) and holds_secret(value):
        yield Problem(document.place(path), path, "holds a token or password", shown(mask(value)), WAY_OUT)
    elif (
        isinstance(value, str)
        and path[-1:] not in FREE_TEXT
        and not _is_unknown(path)
        and (hidden := _HIDDEN.search(_without_breaks(value, path=path)))
    ):
        rule = f"has the control character U+{ord(hidden[0]):04X}"
        yield Problem(document.place(path), path, rule, json.dumps(value)[:MAX_SHOWN], "remove it")


def _is_unknown(path: KeyPath) -> bool:
    """Whether a section has no such key, which is reported by itself."""
    known = fields_at(path[:-1]) if path and isinstance(path[-1], str) else {}
    return bool(known) and path[-1] not in known


def _without_breaks(text: str, *, path: KeyPath) -> str:
    return text.replace("\n", " ") if path[-1:] in PARAGRAPHS else text


def _from_pydantic(
    error: ValidationError, *, document: Document, value: Any
) -> Iterator[tuple[tuple[KeyPath, ...], Problem]]:
    """(key paths involved, problem) for each of pydantic's errors; the members of a union are joined."""
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in error.errors():
        by_path.setdefault(_real_path(detail, value=value), []).append(detail)
    for path in list(by_path):  # of the items that a list lacks only the last is reported
        following = (*path[:-1], path[-1] + 1) if path and isinstance(path[-1], int) else None
        if following in by_path and by_path[path][0]["type"] == "missing":
            del by_path[path]
    for path, details in by_path.items():
        error_raised = details[0].get("ctx", {}).get("error")
        if isinstance(error_raised, ConflictError):
            for keys, message in error_raised.conflicts:
                involved = tuple(path + _key_path(key) for key in keys)
                where = _first_place(document, involved=involved)
                # an override of one key leaves the item's other keys in the file, so the way out replaces the list
                whole = _whole_list(path, where=where) if where.line == 0 else None
                way_out = f"or replace the list: {whole}" if whole else None
                yield involved, Problem(where, involved[0], message, way_out=way_out)
        elif details[0]["type"] != "too_short" or not any(_is_within(other, path) for other in set(by_path) - {path}):
            # a list counts as too short if its items are wrong, and these are reported already
            yield (path,), _problem(details, path=path, document=document)


def _problem(details: list[ErrorDetails], *, path: KeyPath, document: Document) -> Problem:
    where = document.place(path)
    # of a union the member counts whose type is right
    details = [detail for detail in details if not detail["type"].endswith("_type")] or details
    kind, found = details[0]["type"], mask_value(details[0]["input"], key=path[-1] if path else None)
    siblings = fields_at(path[:-1])
    if kind == "extra_forbidden" and names_secret(path[-1]):
        return Problem(where, path, "is no place for a secret", shown(found), WAY_OUT)
    if kind == "extra_forbidden":
        return Problem(where, path, "unknown key", shown(found), _suggestion(str(path[-1]), siblings=siblings))
    if kind == "missing" and isinstance(path[-1], int):
        written: Any = document.value
        for key in path[:-1]:
            written = _child(written, key=key)
        return Problem(where, path[:-1], _one_item(f"must have at least {path[-1] + 1} items"), shown(written))
    if kind == "missing":
        way_out = about(path) or "add it"
        return Problem(where, path, "is required", "nothing", way_out)
    rule = " or ".join(dict.fromkeys(_rule(detail) for detail in details)).replace(" or must be", " or")
    whole = _whole_list(path, where=where) if kind in ("model_type", "tuple_type") else None
    return Problem(
        where, path, rule, shown(found), f"write {whole}" if whole else _way_out(kind, found=found, path=path)
    )


def _rule(detail: ErrorDetails) -> str:
    template = _WANTED.get(detail["type"])
    if template is None:
        return detail["msg"]
    return _one_item(template.format(**detail.get("ctx", {})))


def _one_item(rule: str) -> str:
    return re.sub(r"\b1 items", "1 item", rule)


def _way_out(kind: str, *, found: Any, path: KeyPath) -> str | None:
    if isinstance(found, list) and path[-1] in _ONE_VALUE:
        return _ONE_VALUE[str(path[-1])]
    if kind == "string_type" and isinstance(found, bool | int | float):
        return "quote it"
    if kind == "int_type" and isinstance(found, float) and found.is_integer():
        return f"write {int(found)}"
    if kind in ("int_type", "float_type", "bool_type") and isinstance(found, str):
        return "remove the quotes" if _is_number(found) else about(path)
    if kind == "literal_error" and isinstance(found, str):
        choices = [str(choice) for choice in choices_at(path)]
        meant = OTHER_NAMES.get(found.lower(), "")
        close = [meant] if meant in choices else get_close_matches(found, choices, n=1)
        return f"did you mean `{close[0]}`?" if close else about(path)
    return about(path)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _suggestion(key: str, *, siblings: Mapping[str, Any]) -> str:
    name = key.replace("-", "_")
    if name in ELSEWHERE and key not in REFUSED_KEYS:
        return ELSEWHERE[name]
    close = get_close_matches(key, siblings, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    if key in REFUSED_KEYS:
        return REFUSED_KEYS[key]
    known = list(all_keys())
    close = get_close_matches(key, {path[-1] for path in known}, n=1, cutoff=0.8)
    elsewhere = [dotted(path) for path in known if [path[-1]] == close]
    if elsewhere:
        return f"did you mean `{'` or `'.join(elsewhere)}`?"
    meant = [MEANT[name]] if name in MEANT else find_abbreviated(key)
    if meant:
        return f"did you mean `{'` or `'.join(meant)}`?"
    return f"known here: {', '.join(siblings)}" if siblings else "remove it"


def _whole_list(path: KeyPath, *, where: Where) -> str | None:
    """How the list at `path`, or the list around this item, is written in full; None if the schema has no example."""
    at = path[:-1] if path and isinstance(path[-1], int) else path
    field = fields_at(at[:-1]).get(str(at[-1])) if at else None
    if field is None or not field.examples:
        return None
    # quoted for a shell if it is an override, and written as in a file otherwise
    return f"`{at[-1]}: {field.examples[0]}`" if where.line else f"`'{dotted(at)}={field.examples[0]}'`"


def _real_path(detail: ErrorDetails, *, value: Any) -> KeyPath:
    """Pydantic's location without the names of union members, which are not keys."""
    path: KeyPath = ()
    for key in detail["loc"]:
        is_key = isinstance(value, dict) and (key in value or key in fields_at(path))
        if not (is_key or (isinstance(value, list) and isinstance(key, int))):
            break
        path = (*path, key)
        value = _child(value, key=key)
    return path


def _key_path(key: str) -> KeyPath:
    return tuple(int(part) if part.isdecimal() else part for part in key.split("."))


def _first_place(document: Document, *, involved: tuple[KeyPath, ...]) -> Where:
    """Where one of the `involved` keys was written, an override before a file; else the section around them."""
    written = [document.where[path] for path in involved if path in document.where]
    return min(written, key=lambda where: where.line > 0, default=document.place(involved[0]))


def _is_within(path: KeyPath, section: KeyPath) -> bool:
    return path[: len(section)] == section


def _child(value: Any, *, key: str | int) -> Any:
    """`value[key]`, or None where there is no such key or item."""
    if isinstance(value, dict):
        return value.get(key)
    is_item = isinstance(value, list) and isinstance(key, int) and key < len(value)
    return value[key] if is_item else None


def _replace(value: Any, *, path: KeyPath, replaced: set[KeyPath]) -> None:
    """Puts a harmless value at `path`, or removes the key so that its default holds.

    An item of a list that has no harmless value takes the whole list with it.
    """
    if not path:
        return
    replaced.add(path)
    harmless = HARMLESS.get(general_path(path))
    if harmless is None and isinstance(path[-1], int):
        _replace(value, path=path[:-1], replaced=replaced)
        return
    for key in path[:-1]:
        value = _child(value, key=key)
    if isinstance(value, dict):
        value.pop(path[-1], None)
    if harmless is not None and (isinstance(value, dict) or isinstance(path[-1], int)):
        value[path[-1]] = deepcopy(harmless)
