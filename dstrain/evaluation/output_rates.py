"""Marks of a model that fails, as shares of its hypotheses beside those of the references: empty texts, loops without an end,
copies of the source, another script, another language. They choose no model.

A share alone says little: references repeat themselves and copy their sources too. So both sides are measured alike, on the same
rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dstrain.evaluation.language import detector_signature, find_candidates, find_wrong_languages, find_wrong_scripts
from dstrain.evaluation.significance import ALPHA, flip_p
from dstrain.run_folder.scores import OutputRate

LOOP_TIMES, LOOP_CHARACTERS, LONGEST_PIECE = 4, 16, 200
"""A text ends in a loop if one piece of at most 200 characters stands at its end at least four times in a row, with at least 16
characters together. The piece may begin anywhere, so that the last time may be cut."""

MEANINGS: Mapping[str, str] = {
    "empty": "are empty",
    "loop": "end in one piece over and over",
    "copy": "are their source",
    "wrong_script": "are in another script than the references of their language",
    "wrong_language": "are in another language",
}
"""Name of a rate -> what is said of the texts."""


@dataclass(frozen=True, slots=True)
class Texts:
    """What is looked at of the rows of an evaluation."""

    hypotheses: Sequence[str]
    references: Sequence[str]
    """The first reference of each row."""
    sources: Sequence[str]
    languages: Sequence[str | None]
    """The target language of each row, as the recipe names it."""
    other_languages: Sequence[str] = ()
    """Source languages, which a hypothesis may be in by mistake."""
    has_script: bool = True
    """Whether the texts are written language; parses are not."""


@dataclass(frozen=True, slots=True)
class OutputRates:
    """The rates by name, and what a reader should know of them."""

    rates: dict[str, OutputRate]
    signatures: dict[str, str]
    warnings: list[str]
    """A sentence for each rate that is higher among the hypotheses than among the references, beyond chance."""


def find_rates(texts: Texts) -> OutputRates:
    """The rates of these texts; that of languages only where their detector is installed and knows them."""
    among = find_candidates(texts.languages, others=texts.other_languages) if texts.has_script else []
    found = {name: _Marked(*marks) for name, marks in _find_marks(texts, among=among).items()}
    rates = {name: OutputRate(_share(each.hypotheses), _share(each.references)) for name, each in found.items()}
    warnings = [
        f"{sum(each.hypotheses):,} of {len(texts.hypotheses):,} hypotheses {MEANINGS[name]}, and of the references "
        f"{sum(each.references):,}; the first is in row {_first(each) + 1}"
        for name, each in found.items()
        if each.is_significant
    ]
    return OutputRates(rates, {"wrong_language": detector_signature(among)} if among else {}, warnings)


@dataclass(frozen=True, slots=True)
class _Marked:
    """Which texts of either side have a mark."""

    hypotheses: Sequence[bool]
    references: Sequence[bool]

    @property
    def is_significant(self) -> bool:
        differences = np.subtract(self.hypotheses, self.references, dtype=np.float64)
        return bool(differences.sum() > 0) and flip_p(differences)[0] < ALPHA


def _find_marks(texts: Texts, *, among: Sequence[str]) -> dict[str, tuple[list[bool], list[bool]]]:
    def each(test: Callable[[str], bool]) -> tuple[list[bool], list[bool]]:
        return [test(text) for text in texts.hypotheses], [test(text) for text in texts.references]

    found = {"empty": each(is_empty), "loop": each(ends_in_loop)}
    if texts.has_script:
        sides = texts.hypotheses, texts.references
        pairs = [zip(side, texts.sources, strict=True) for side in sides]
        hypotheses, references = ([is_copy(text, source=source) for text, source in side] for side in pairs)
        found["copy"] = hypotheses, references
        found["wrong_script"] = find_wrong_scripts(*sides, languages=texts.languages)
        if among:
            found["wrong_language"] = find_wrong_languages(*sides, languages=texts.languages, among=among)
    return found


def is_empty(text: str) -> bool:
    """Whether nothing of a text is visible."""
    return not any(letter.isprintable() and not letter.isspace() for letter in text)


def is_copy(text: str, *, source: str) -> bool:
    """Whether a text is its source but for case and white space; an empty one is not."""
    one, other = (" ".join(each.casefold().split()) for each in (text, source))
    return bool(one) and one == other


def ends_in_loop(text: str) -> bool:
    """Whether a text goes on with one piece until its end, see LOOP_TIMES."""
    for size in range(1, min(LONGEST_PIECE, len(text) // LOOP_TIMES) + 1):
        end = text[-max(LOOP_TIMES * size, LOOP_CHARACTERS) :]
        # a text that equals itself moved by a piece is that piece again and again
        if len(end) >= LOOP_CHARACTERS and end[size:] == end[:-size]:
            return True
    return False


def _share(marks: Sequence[bool]) -> float:
    return sum(marks) / len(marks)


def _first(marked: _Marked) -> int:
    pairs = zip(marked.hypotheses, marked.references, strict=True)
    return next(row for row, (hypothesis, reference) in enumerate(pairs) if hypothesis and not reference)
