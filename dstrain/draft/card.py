"""Reads what a model card states: front matter, hyperparameters, results and versions. Guesses nothing.

The card of Hugging Face's Trainer is the pattern, in the spellings of transformers 4 and 5, of its Keras callback and of dstrain.
A card is a stranger's text: it is read as text of a bounded size, and what does not fit the pattern is left out.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dstrain.config.secrets import mask
from dstrain.config.yaml_source import read_document
from dstrain.errors import UserError

MAX_CARD_BYTES = 4 << 20
"""Largest card that is read. The largest on the Hub hold examples of data and have a few hundred thousand bytes."""
MAX_TEXT = 200
"""Most characters of a name or a value."""

_BULLET = re.compile(r"[-*] +([A-Za-z][\w ./+-]{0,60}?) *: *(\S.*)")
_VERSION = re.compile(r"[-*] +([A-Za-z][\w-]{0,30}):? +(\d[\w.+-]{0,40})")
_BASE = re.compile(r"fine-tuned version of \[([^\]\n]{1,200})\]")
_DATASET = re.compile(r"\]\([^)\n]{0,400}\) on the ([^\n]{1,200}?) dataset")
_RULE = re.compile(r":?-+:?")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class Table:
    """The table of results: the names of its columns, and its rows, each with as many cells."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a card states, as it is written there. What it does not state is empty or None."""

    file: str
    title: str = ""
    base_model: str | None = None
    datasets: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    results: Mapping[str, float] = field(default_factory=dict)
    """The scores that the card opens with."""
    table: Table = Table()
    versions: Mapping[str, str] = field(default_factory=dict)
    """Framework, in small letters, to its version."""

    def number(self, *names: str) -> float | None:
        """The first of these hyperparameters that is a finite number; None if none is."""
        found = (read_number(self.hyperparameters.get(name, "")) for name in names)
        return next((value for value in found if value is not None), None)


def read_card(path: Path) -> ModelCard:
    """What the card in a file states.

    Raises:
        UserError: the file is too large or no text, or it is no card of a training: it names no hyperparameters.
    """
    with path.open("rb") as file:
        content = file.read(MAX_CARD_BYTES + 1)
    if len(content) > MAX_CARD_BYTES:
        raise UserError(f"{path}: larger than {MAX_CARD_BYTES:,} bytes: not a model card")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start + 1}: not a model card") from error
    card = parse_card(text, file=str(path))
    if not card.hyperparameters:
        raise UserError(
            f"{path}: names no hyperparameters: a card of a training has a heading `Training hyperparameters` and below it "
            "lines such as `- learning_rate: 0.0003`"
        )
    return card


def parse_card(text: str, *, file: str) -> ModelCard:
    """What the text of a card states, secrets masked; `file` is its name in messages."""
    front, body = _split_front_matter(mask(text))
    values = read_document(front, file=file).value if front else {}
    sections = _sections(body)
    found = _BASE.search(body)
    bases = [found[1].strip()] if found else _texts(values.get("base_model"))
    named = _DATASET.search(body)
    return ModelCard(
        file=file,
        title=next((heading for heading, level, _ in sections if level == 1), ""),
        base_model=next(iter(bases), None),
        datasets=tuple(_texts(values.get("datasets")) or ([named[1]] if named and named[1] != "None" else [])),
        languages=tuple(_texts(values.get("language"))),
        tags=tuple(
            _texts(values.get("tags")) + _texts(values.get("pipeline_tag")) + _texts(values.get("library_name"))
        ),
        hyperparameters=_hyperparameters(_lines(sections, "hyperparameters")),
        results=_results(body),
        table=_table(_lines(sections, "training results")),
        versions={
            match[1].lower(): match[2]
            for line in _lines(sections, "framework versions")
            if (match := _VERSION.match(line))
        },
    )


def read_number(text: str) -> float | None:
    """The number that a text is; None if it is none, or not finite."""
    match = _NUMBER.fullmatch(text.strip().replace(",", ""))
    value = float(match[0]) if match and len(match[0]) <= 40 else math.nan
    return value if math.isfinite(value) else None


def _split_front_matter(text: str) -> tuple[str, str]:
    lines = text.split("\n")
    if lines[0].strip() != "---":
        return "", text
    end = next((number for number, line in enumerate(lines[1:], start=1) if line.strip() == "---"), None)
    return ("", text) if end is None else ("\n".join(lines[1:end]), "\n".join(lines[end + 1 :]))


def _sections(body: str) -> list[tuple[str, int, list[str]]]:
    """(heading, its level, the lines below it), for each heading outside of blocks of code."""
    found: list[tuple[str, int, list[str]]] = [("", 0, [])]
    in_code = False
    for line in body.splitlines():
        in_code ^= line.startswith(("```", "~~~"))
        match = re.match(r"(#{1,6}) +(.+)", line)
        if match and not in_code:
            found.append((match[2].strip()[:MAX_TEXT], len(match[1]), []))
        else:
            found[-1][2].append(line.strip())
    return found


def _lines(sections: list[tuple[str, int, list[str]]], wanted: str) -> list[str]:
    return next((lines for heading, _, lines in sections if heading.lower().endswith(wanted)), [])


def _hyperparameters(lines: list[str]) -> dict[str, str]:
    matches = (match for line in lines if (match := _BULLET.match(line)))
    found: dict[str, str] = {}
    for match in matches:
        found.setdefault(match[1].strip(), match[2].strip()[: 10 * MAX_TEXT])
    return found


def _results(body: str) -> dict[str, float]:
    """The scores below "achieves the following results", as far as they are numbers."""
    _, begin, rest = body.partition("achieves the following results")
    found: dict[str, float] = {}
    for line in rest.splitlines()[1:] if begin else ():
        match = _BULLET.match(line.strip())
        if match is None:
            if found or line.startswith("#"):
                break
            continue
        value = read_number(match[2])
        if value is not None:
            found.setdefault(match[1].strip(), value)
    return found


def _table(lines: list[str]) -> Table:
    """The first table: a row of names, a row of rules, then rows with as many cells."""
    rows = [[cell.strip()[:MAX_TEXT] for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    if len(rows) < 2 or not all(_RULE.fullmatch(cell) for cell in rows[1]):
        return Table()
    columns = tuple(rows[0])
    return Table(columns, tuple(tuple(row) for row in rows[2:] if len(row) == len(columns)))


def _texts(value: Any) -> list[str]:
    return list(_walk(value))[:20]


def _walk(value: Any) -> Iterator[str]:
    """The texts in a value of the front matter, which may be one or a list."""
    if isinstance(value, str) and value.strip():
        yield value.strip()[:MAX_TEXT]
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item)
