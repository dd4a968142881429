"""What rows mean, by a sample of them: parses, a translation, or any text to any other. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dstrain.data.records import Column
from dstrain.draft.languages import WORDS, guess_language
from dstrain.tasks.parsing import MalformedParse, parse_tokens

Pairs = Sequence[tuple[str, str]]

Language = tuple[str, str]
"""The code of a language, and what it was taken from."""
NAMED = "as it was named"

LOOKED_AT = 2000
"""Pairs of the sample that are looked at."""
MOSTLY = 0.9
TEXT_TASKS = {
    "summary": "summarisation",
    "highlights": "summarisation",
    "abstract": "summarisation",
    "corrected": "correction",
    "correction": "correction",
    "paraphrase": "paraphrase",
    "simplified": "simplification",
}
"""Names of columns of targets to what a text task is called."""
SHARED_WORDS = 0.3
"""Share of the words of targets in their sources from which on both are taken for one language of the Latin script."""


@dataclass(frozen=True, slots=True)
class Guess:
    """The kind of a task, its languages, and the evidence."""

    kind: str
    why: str
    source_language: str | None = None
    target_language: str | None = None
    language_why: tuple[str, str] = ("", "")
    """What each of both languages was taken from."""
    name: str | None = None
    """What a text task is called."""
    by_row: bool = False
    """Whether each row names its languages."""
    codes: frozenset[str] = frozenset()
    """The codes that rows name, as far as they were looked at."""
    has_pointers: bool = False
    """Whether parses are in the pointer form already."""


def guess_task(
    sample: Pairs,
    *,
    kind: str | None,
    languages: tuple[Language | None, Language | None],
    target_column: Column | None = None,
    by_row: bool = False,
    codes: frozenset[str] = frozenset(),
) -> Guess:
    """The task of a sample; what is known of it already, `kind`, the languages and that each row names its own, holds.

    `codes` are those that rows name. `target_column` may be called after what a text task makes.
    """
    if by_row and kind in (None, "translation"):
        why = "each row names its languages" if kind is None else NAMED
        return Guess("translation", why, by_row=True, codes=codes)
    pairs = sample[:LOOKED_AT]
    share = sum(map(_is_parse, (target for _, target in pairs))) / len(pairs)
    if kind == "parsing" or (kind is None and share >= MOSTLY):
        pointers = sum("<pt-" in target for _, target in pairs) > 0.5 * len(pairs)
        return Guess("parsing", f"{100 * share:.0f} % of the targets are bracketed parses", has_pointers=pointers)
    sides = zip(languages, zip(*pairs, strict=True), strict=True)
    source, target = (known or guess_language(texts) or (None, "no letters") for known, texts in sides)
    common = sum(map(_common_words, pairs)) / len(pairs)
    # by frequent words alone, short texts of one language may seem to be of two
    is_sure = all(languages) or not {source[0], target[0]} <= WORDS.keys() or common < SHARED_WORDS
    is_pair = source[0] != target[0] and is_sure
    if kind == "translation" or (kind is None and is_pair):
        why = "sources and targets are in two languages" if is_pair else NAMED
        return Guess("translation", why, source[0], target[0], (source[1], target[1]))
    return _text(pairs, common=common, is_named=kind is not None, target_column=str(target_column).lower())


def _is_parse(target: str) -> bool:
    if not target.lstrip().startswith("["):
        return False
    try:
        return len(parse_tokens(target)) > 1
    except MalformedParse:
        return False


def _text(pairs: Pairs, *, common: float, is_named: bool, target_column: str) -> Guess:
    source, target = (sum(map(len, texts)) / len(pairs) for texts in zip(*pairs, strict=True))
    why = NAMED if is_named else "both sides seem to be in one language, and targets are no parses"
    if target_column in TEXT_TASKS:
        return Guess("text", f"{why}; the targets are called `{target_column}`", name=TEXT_TASKS[target_column])
    if source > 200 and target < 0.5 * source:
        return Guess("text", f"{why}; long sources with short targets look like summaries", name="summarisation")
    if common > 0.5 and 0.5 < target / source < 2:
        return Guess(
            "text", f"{why}; {100 * common:.0f} % of the words of the targets are in their sources", name="correction"
        )
    return Guess("text", why)


def _common_words(pair: tuple[str, str]) -> float:
    """The share of the target's words that the source has."""
    source, target = (re.findall(r"[^\W\d_]+", text.lower()) for text in pair)
    return sum(word in {*source} for word in target) / len(target) if target else 0.0
