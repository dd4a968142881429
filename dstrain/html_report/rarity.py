"""Words of texts in any script, and how often the rarest word of a text occurs in training. Pure."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

import regex

from dstrain.tasks.scripts import WITHOUT_SPACES

MAX_DISTINCT = 200_000
"""Most different pieces between white space that are held before they are taken apart."""

_ENDS = regex.compile(r"^[\p{P}\p{S}]+|[\p{P}\p{S}]+$")
_PARTS = regex.compile(rf"[{WITHOUT_SPACES}]\p{{M}}*|[^{WITHOUT_SPACES}]+")


def words_of(text: str) -> list[str]:
    """What stands between spaces, whatever its case and without punctuation at its ends.

    In scripts without spaces each character is a word. A piece of punctuation alone, as the closing bracket of a parse, is none.
    """
    return [word for piece in text.split() for word in _words_of_piece(piece)]


@lru_cache(maxsize=1 << 16)
def _words_of_piece(piece: str) -> tuple[str, ...]:
    parts = (_ENDS.sub("", part) for part in _PARTS.findall(piece.casefold()))
    return tuple(part for part in parts if part)


def count_words(texts: Iterable[str], *, words: Collection[str]) -> dict[str, int]:
    """How often each of `words` occurs in the texts, 0 for those that do not."""
    counts = dict.fromkeys(words, 0)
    pieces: Counter[str] = Counter()
    for text in texts:
        pieces.update(text.split())
        if len(pieces) > MAX_DISTINCT:
            _add(counts, pieces)
            pieces.clear()
    _add(counts, pieces)
    return counts


def _add(counts: dict[str, int], pieces: Mapping[str, int]) -> None:
    for piece, number in pieces.items():
        for word in _words_of_piece(piece):
            if word in counts:
                counts[word] += number


def rarest(text: str, *, counts: Mapping[str, int]) -> int | None:
    """The count of the text's rarest word; None if it has no word, or one that was not counted."""
    words = words_of(text)
    return min(counts[word] for word in words) if words and all(word in counts for word in words) else None
