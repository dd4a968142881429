"""What kinds of characters texts consist of: scripts, digits, and characters that no text should have.

Scripts are recognised by Unicode's blocks, which needs no table of languages. Knows nothing of rows.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

OTHER, DIGIT, CONTROL = range(3)
"""Kinds that are no script: punctuation, white space, symbols; decimal digits; control characters and the like."""

BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {
    "Latin": (
        (0x41, 0x5A),
        (0x61, 0x7A),
        (0xAA, 0xAA),
        (0xBA, 0xBA),
        (0xC0, 0x2AF),
        (0x1E00, 0x1EFF),
        (0xFF21, 0xFF5A),
    ),
    "Greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "Cyrillic": ((0x400, 0x52F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)),
    "Armenian": ((0x530, 0x58F),),
    "Hebrew": ((0x590, 0x5FF), (0xFB1D, 0xFB4F)),
    "Arabic": ((0x600, 0x6FF), (0x750, 0x77F), (0x8A0, 0x8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFE)),
    "Devanagari": ((0x900, 0x97F),),
    "Bengali": ((0x980, 0x9FF),),
    "Gurmukhi": ((0xA00, 0xA7F),),
    "Gujarati": ((0xA80, 0xAFF),),
    "Odia": ((0xB00, 0xB7F),),
    "Tamil": ((0xB80, 0xBFF),),
    "Telugu": ((0xC00, 0xC7F),),
    "Kannada": ((0xC80, 0xCFF),),
    "Malayalam": ((0xD00, 0xD7F),),
    "Sinhala": ((0xD80, 0xDFF),),
    "Thai": ((0xE00, 0xE7F),),
    "Lao": ((0xE80, 0xEFF),),
    "Tibetan": ((0xF00, 0xFFF),),
    "Myanmar": ((0x1000, 0x109F), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F)),
    "Georgian": ((0x10A0, 0x10FF), (0x1C90, 0x1CBF), (0x2D00, 0x2D2F)),
    "Hangul": ((0x1100, 0x11FF), (0x3130, 0x318F), (0xA960, 0xA97F), (0xAC00, 0xD7FF), (0xFFA0, 0xFFDC)),
    "Ethiopic": ((0x1200, 0x139F), (0x2D80, 0x2DDF), (0xAB00, 0xAB2F)),
    "Khmer": ((0x1780, 0x17FF),),
    "Mongolian": ((0x1800, 0x18AF),),
    # a Japanese row may have only one of the two, so they count as one
    "Han or Kana": (
        (0x2E80, 0x2FDF),
        (0x3005, 0x3007),
        (0x3021, 0x3029),
        (0x3040, 0x30FF),
        (0x31F0, 0x31FF),
        (0x3400, 0x4DBF),
        (0x4E00, 0x9FFF),
        (0xF900, 0xFAFF),
        (0xFF66, 0xFF9F),
        (0x20000, 0x3FFFF),
    ),
}
"""Scripts to the ranges of their code points, both ends included."""

SCRIPTS = ("", *BLOCKS)
"""Names of scripts by number; 0 stands for a text that is not clearly of one script."""

NUM_KINDS = CONTROL + len(SCRIPTS)

MIN_LETTERS = 8
"""Letters below which a text is of no script: a name or an abbreviation may stand in any language."""

MAIN_SHARE = 0.95
"""Share of the letters that must be of one script."""

CONTROLS = (
    (0, 8),
    (0xB, 0xC),
    (0xE, 0x1F),
    (0x7F, 0x9F),
    (0xD800, 0xF8FF),
    (0xFEFF, 0xFEFF),
    (0xFFF9, 0xFFFF),
    (0xE0000, 0x10FFFF),
)
"""Control characters but tab and line ends, halves of surrogate pairs, private use, the byte order mark, U+FFFD, which stands
for a character that was lost, and no characters at all."""

MOST_CHARACTERS = 1 << 20
"""Characters that are counted together, in some tens of megabytes."""

LAST_DIGIT = 0x1FBFF
"""Decimal digits lie below."""

Counts = npt.NDArray[np.int64]


@cache
def _kinds() -> npt.NDArray[np.uint8]:
    """The kind of every code point `[code points]`."""
    kinds = np.zeros(0x110000, dtype=np.uint8)
    for number, ranges in enumerate(BLOCKS.values(), start=CONTROL + 1):
        for first, last in ranges:
            kinds[first : last + 1] = number
    for sign in (0xD7, 0xF7, *range(0xFF3B, 0xFF41)):  # × and ÷, and punctuation between full-width letters
        kinds[sign] = OTHER
    kinds[[code for code in range(LAST_DIGIT + 1) if chr(code).isdecimal()]] = DIGIT
    for first, last in CONTROLS:
        kinds[first : last + 1] = CONTROL
    return kinds


def count_kinds(texts: Sequence[str]) -> Counts:
    """How many characters of each kind the texts have `[texts, NUM_KINDS]`."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    if lengths.sum() > MOST_CHARACTERS and len(texts) > 1:
        half = len(texts) // 2
        return np.concatenate([count_kinds(texts[:half]), count_kinds(texts[half:])])
    codes = np.frombuffer("".join(texts).encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
    cells = np.repeat(np.arange(len(texts)) * NUM_KINDS, lengths) + _kinds()[codes]
    return np.bincount(cells, minlength=len(texts) * NUM_KINDS).reshape(len(texts), NUM_KINDS)


def count_letters(kinds: Counts) -> npt.NDArray[Any]:
    """How many letters the texts have `[texts]`, of the counts of their kinds `[texts, NUM_KINDS]`."""
    letters: npt.NDArray[Any] = kinds[:, CONTROL + 1 :].sum(axis=1)
    return letters


def main_scripts(kinds: Counts) -> npt.NDArray[Any]:
    """The number of the script of each text `[texts]`, 0 where it is not clear."""
    scripts = kinds[:, CONTROL + 1 :]
    letters = scripts.sum(axis=1)
    is_clear = (letters >= MIN_LETTERS) & (scripts.max(axis=1) >= MAIN_SHARE * letters)
    return np.where(is_clear, scripts.argmax(axis=1) + 1, 0)
