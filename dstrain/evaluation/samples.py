"""A few hypotheses beside their references, for the terminal: of the same rows each time, so that one sees progress. Pure."""

from collections.abc import Iterator

from dstrain.run_folder.scores import ScoredTexts

MAX_SHOWN = 100
"""Most characters of a text that are shown."""


def choose_samples(num_rows: int, *, number: int) -> list[int]:
    """Rows that are spread evenly over all, first to last; all of them if there are no more."""
    number = min(number, num_rows)
    return [(2 * place + 1) * num_rows // (2 * number) for place in range(number)]


def describe_samples(texts: ScoredTexts, *, number: int) -> list[str]:
    """Lines with the place, source, hypothesis and first reference of so many rows."""
    return [line for row in choose_samples(len(texts.hypotheses), number=number) for line in _describe(texts, row=row)]


def _describe(texts: ScoredTexts, *, row: int) -> Iterator[str]:
    yield f"  {texts.index[row]}: {_shorten(texts.sources[row])}"
    yield f"    hypothesis  {_shorten(texts.hypotheses[row])}"
    yield f"    reference   {_shorten(texts.references[0][row])}"


def _shorten(text: str) -> str:
    one = " ".join(text.split())
    return (one if len(one) <= MAX_SHOWN else f"{one[: MAX_SHOWN - 1]}…") or "(empty)"
