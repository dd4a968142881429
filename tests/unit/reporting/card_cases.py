"""Reads a card back: front matter, headings, lists and tables."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from markdown_it import MarkdownIt
from markdown_it.token import Token


def load(card: str, *, folder: Path) -> Any:
    path = folder / "README.md"
    path.write_text(card, encoding="utf-8", newline="\n")
    return ModelCard.load(path)


def rebuild(data: dict[str, Any]) -> Any:
    """The metadata after a round trip through the Hub's own class."""
    card_data: Any = ModelCardData(**data)
    return card_data.to_dict()


def parse(card: str) -> list[Token]:
    """The card without its front matter, parsed as CommonMark with tables. The parser is a dependency of rich."""
    return MarkdownIt("commonmark").enable("table").parse(card.split("\n---\n", 1)[1])


def headings(card: str) -> list[str]:
    tokens = parse(card)
    return [text.content for mark, text in pairwise(tokens) if mark.type == "heading_open"]


def listed(card: str, *, under: str) -> dict[str, str]:
    section = card.split(f"# {under}\n", 1)[1].split("\n#", 1)[0]
    return dict(re.findall(r"^- (.+?): (.+)$", section, flags=re.MULTILINE))


def tables(card: str) -> list[list[list[str]]]:
    """Header and rows of every table."""
    found: list[list[list[str]]] = []
    for mark, text in pairwise(parse(card)):
        if mark.type == "table_open":
            found.append([])
        elif mark.type == "tr_open":
            found[-1].append([])
        elif mark.type in ("th_open", "td_open"):
            found[-1][-1].append(text.content)
    return found


def inline_parts(card: str, *, kind: str) -> list[Token]:
    """All tokens of a kind, including those inside text."""
    tokens = parse(card)
    return [token for outer in tokens for token in [outer, *(outer.children or [])] if token.type == kind]


def results_table(card: str) -> list[list[str]]:
    return next(table for table in tables(card) if table[0][0] == "Training Loss")
