"""What a key of a recipe or a metric means, from the docstrings of the schema, and where a recipe sets a key. Pure.

The texts are those of docs/recipes.md.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from dstrain.config.metrics import METRICS, Metric
from dstrain.config.reference import describe_default, describe_type, section_name
from dstrain.config.schema import RECIPE_KEYS, RunConfig
from dstrain.config.secrets import mask_value
from dstrain.config.trainer_names import ACCUMULATION, BATCH_SIZES, ELSEWHERE, MEANT
from dstrain.config.vocabulary import (
    NAME,
    about,
    all_keys,
    fields_at,
    find_abbreviated,
    find_keys,
    general_path,
    without_links,
)
from dstrain.config.yaml_source import Document, KeyPath, dotted, shown

UNITS: Mapping[str, str] = {
    "steps": "optimizer steps",
    "epochs": "epochs",
    "minutes": "minutes",
    "seconds": "seconds",
    "tokens": "tokens",
    "rows": "rows",
}
"""The last word of a key to the unit of its value."""
MAX_CLOSE = 3
_WHOLE_STEP = (
    f"training.batch_size counts the sequences of a step over all ranks: those of one device × ranks × {ACCUMULATION}"
)
_INDEX = re.compile(r"\[([0-9]+|N)\]")


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is to be said about a name."""

    title: str
    rows: tuple[tuple[str, str], ...]
    """A topic and a text each."""
    keys: tuple[tuple[str, str, str], ...] = ()
    """Of a section: each key, its default, and the first sentence of its meaning."""


def find_meant(name: str) -> list[KeyPath]:
    """The keys that a name may mean, in their general form: that key itself, else all that end so, else what a trainer means."""
    path = _general(_split(name))
    if path[-1:] == (NAME,):  # of a section with a name of the user's
        path = path[:-1]
    if path in set(all_keys()):
        return [path]
    return find_keys(dotted(path)) or ([_general(_split(MEANT[name]))] if name in MEANT else [])


def find_close(name: str) -> list[str]:
    """Names of keys and metrics that are spelt nearly so."""
    keys = [dotted(path) for path in all_keys()]
    ends = {path[-1]: dotted(path) for path in all_keys()}
    close = get_close_matches(
        name, [*keys, *ends, *MEANT, *ELSEWHERE, *(metric.name for metric in METRICS)], n=MAX_CLOSE, cutoff=0.7
    )
    return list(dict.fromkeys(ends.get(each, MEANT.get(each, each)) for each in close)) or find_abbreviated(name)


def explain_key(path: KeyPath, *, written: str = "", document: Document | None = None) -> Explanation:
    """A key in its general form, as `find_meant` returns it; with a document also its values there and where they are set.

    `written` is how the user wrote it: a number in it chooses one item of a list.
    """
    schema: Mapping[str, Any] = RunConfig.model_json_schema()
    section, value = schema, schema
    for part in path:
        if part in section.get("properties", {}):
            above, value = section, section["properties"][part]
            name = section_name(value)
            section = schema["$defs"][name] if name else {}
    inner = section_name(value)
    key = str(path[-1])
    meaning = without_links(str(value.get("description") or (section.get("description", "") if inner else "")))
    rows = [
        ("meaning", meaning),
        ("type", _plain(describe_type(value))),
        *([("unit", unit)] if (unit := _unit(key, value)) else []),
        ("default", _plain(describe_default(key, value, required=above.get("required", ())))),
        ("half", _half(path)),
    ]
    keys = tuple(_keys(section, path=path)) if inner else ()
    if document is not None:
        rows += [("value" if number == 0 else "", text) for number, text in enumerate(_values(path, written, document))]
    return Explanation(dotted(path), tuple(row for row in rows if row[1]), keys)


def explain_metric(name: str) -> Explanation | None:
    """A score of an evaluation, also of one set, such as `flores/bleu`; None if there is none of this name."""
    metric: Metric | None = next((each for each in METRICS if each.name == name.rpartition("/")[2]), None)
    if metric is None:
        return None
    chooses = "may be evaluation.best_metric" if metric.can_choose else "does not choose the best model"
    better = "lower" if metric.lower_is_better else "higher"
    rows = [
        ("meaning", without_links(metric.meaning)),
        ("unit", metric.unit),
        ("tasks", ", ".join(metric.tasks) or f"any, with evaluation.metrics: [{metric.wanted_as}]"),
        ("use", f"{chooses}; {better} is better" if metric.can_choose else chooses),
        ("interval", "yes" if metric.has_rows else "no"),
    ]
    return Explanation(f"{name} (a score)", tuple(rows))


def explain_trainer_argument(name: str) -> Explanation | None:
    """An argument of Seq2SeqTrainer that no key here takes the place of with its value; None if there is none of this name."""
    told = {**dict.fromkeys(BATCH_SIZES, _WHOLE_STEP), **ELSEWHERE}
    if name not in told or find_keys(name):
        return None
    return Explanation(f"{name} (an argument of Seq2SeqTrainer)", (("here", told[name]),))


def _split(name: str) -> KeyPath:
    parts = _INDEX.sub(r".\1", name).split(".")
    return tuple(0 if part == "N" else int(part) if part.isdecimal() else part for part in parts)


def _general(path: KeyPath) -> KeyPath:
    """The path without numbers of items, as `all_keys` has it."""
    return tuple(part for part in general_path(path) if not isinstance(part, int))


def _plain(text: str) -> str:
    return text.replace("`", "")


def _unit(key: str, value: Mapping[str, Any]) -> str | None:
    """The unit of a number, by the name of its key."""
    types = {str(member.get("type")) for member in (value, *value.get("anyOf", ()))}
    return UNITS.get(key.rpartition("_")[2]) if types & {"integer", "number"} else None


def _half(path: KeyPath) -> str:
    if path[0] in RECIPE_KEYS:
        return "recipe: it decides what is learned or scored"
    if path[0] in ("machine", "checkpoint", "logging"):
        return "machine: it decides how the run is computed, saved and logged"
    return ""


def _keys(section: Mapping[str, Any], *, path: KeyPath) -> Iterator[tuple[str, str, str]]:
    is_named = not fields_at(path) and bool(fields_at((*path, NAME)))
    for key, value in section.get("properties", {}).items():
        default = describe_default(key, value, required=section.get("required", ()))
        inner = (NAME, key) if is_named else (key,)
        yield dotted(inner), _plain(default), about((*path, *inner)) or ""


def _values(path: KeyPath, written: str, document: Document) -> Iterator[str]:
    """Each value of a key, or of the keys in a section, in a document with its place; or that it is not set."""
    asked = _split(written) if written else ()
    is_one = _general(asked) != asked and "N" not in re.split(r"[.\[\]]", written)
    wanted = asked if is_one else ()
    found = [
        place
        for place in document.where
        if place and _general(place)[: len(path)] == path and place[: len(wanted)] == wanted
    ]
    found = [place for place in found if _is_shown(place, wanted=wanted, document=document)]
    for place in found:
        name = f"{dotted(place)} = " if len(found) > 1 or place != path else ""
        yield f"{name}{shown(mask_value(_find(document.value, place), key=place[-1]))}  ({document.where[place]})"
    if not found:
        yield "not set: the default holds"


def _is_shown(place: KeyPath, *, wanted: KeyPath, document: Document) -> bool:
    """Whether the value at a place is shown by itself: it holds no keys, and is no item of a list unless it is wanted."""
    value, around = _find(document.value, place), _find(document.value, place[:-1])
    items = value if isinstance(value, list) else [value]
    return (place == wanted or not isinstance(around, list)) and not any(isinstance(item, dict) for item in items)


def _find(value: Any, path: Sequence[str | int]) -> Any:
    for key in path:
        value = value[key]
    return value
