"""What makes two rows the same: hashes of their texts, as they are and normalised, in 28 bytes a row.

With them, repeated rows and rows of an evaluation set are found among any number of rows without their texts. Normalised means
Unicode's NFKC, without case, and one space for any white space. Knows nothing of sets.
"""

import hashlib
import unicodedata
import zlib
from collections.abc import Sequence
from itertools import product
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dstrain.data.examples import Example

IDENTITY = np.dtype(
    [
        ("source", "<u8"),
        ("target", "<u8"),
        ("source_text", "<u4"),
        ("target_text", "<u4"),
        ("line", "<u4"),
    ]
)
"""Hashes of the normalised texts, checksums of the texts as they are, and the number behind the colon of `file:line`."""

Level = Literal["equal", "normalised"]
View = Literal["source", "target", "pair"]
LEVELS: tuple[Level, ...] = ("equal", "normalised")
VIEWS: tuple[View, ...] = ("source", "target", "pair")
WAYS = tuple(product(LEVELS, VIEWS))
"""In which ways two rows may be the same."""

Identities = npt.NDArray[Any]
"""Rows of type IDENTITY `[rows]`."""
Keys = npt.NDArray[np.uint64]

SEPARATOR = "\x1e"
SPACES = bytes.maketrans(b"\t\n\r\x0b\x0c", b"     ")
FURTHER_SPACES = dict.fromkeys("\x85\u1680\u2028\u2029", " ") | dict.fromkeys("\xad\u200b\u2060\ufeff", "")
"""White space of which NFKC makes no space; and characters that are not drawn, and say only where a line may break."""


def identify(examples: Sequence[Example]) -> Identities:
    """The identities of examples, of their texts as they are in the data; of several references the first counts."""
    found = np.empty(len(examples), dtype=IDENTITY)
    sides = [example.raw_source for example in examples], [example.raw_target for example in examples]
    for side, texts in zip(("source", "target"), sides, strict=True):
        found[side] = _hash(normalise(texts))
        found[f"{side}_text"] = [zlib.crc32(text.encode(errors="surrogatepass")) for text in texts]
    found["line"] = [line_of(example.where) for example in examples]
    return found


def hash_sources(texts: Sequence[str]) -> Keys:
    """The hashes of texts, normalised `[texts]`: those of IDENTITY's source."""
    return _hash(normalise(texts))


def line_of(where: str) -> int:
    """The number at the end of `file:line`; 0 if there is none that has 32 bits."""
    line = where.rpartition(":")[2]
    return int(line) if line.isdecimal() and len(line) < 10 else 0


def normalise(texts: Sequence[str]) -> list[bytes]:
    """The texts normalised, as UTF-8."""
    if not texts:
        return []
    joined = SEPARATOR.join(texts)
    if joined.count(SEPARATOR) >= len(texts):  # a text has the separator: rare, and slow
        return [_fold(text).strip() for text in texts]
    # in one call for all texts, because a call for each takes several times as long
    return [text.strip() for text in _fold(joined).split(SEPARATOR.encode())]


def _fold(text: str) -> bytes:
    folded = unicodedata.normalize("NFKC", text).casefold()
    if not folded.isascii():
        for character, instead in FURTHER_SPACES.items():
            folded = folded.replace(character, instead)
    encoded = folded.encode(errors="surrogatepass").translate(SPACES)
    while b"  " in encoded:  # several times as fast as a regular expression
        encoded = encoded.replace(b"  ", b" ")
    return encoded


def _hash(texts: Sequence[bytes]) -> Keys:
    digests = b"".join([hashlib.blake2b(text, digest_size=8).digest() for text in texts])
    return np.frombuffer(digests, dtype="<u8")


def keys_of(identities: Identities, *, level: Level, view: View) -> Keys:
    """A key for each row `[rows]`, the same for rows that are the same in this way."""
    sides = ("source", "target") if view == "pair" else (view,)
    parts = [identities[side] for side in sides]
    if level == "equal":
        parts += [identities[f"{side}_text"].astype(np.uint64) for side in sides]
    key = parts[0]
    for part in parts[1:]:
        key = _mix(key, part)
    return key


def _mix(first: Keys, second: Keys) -> Keys:
    """One key of two, by the last steps of SplitMix64."""
    mixed = first * np.uint64(0x9E3779B97F4A7C15) + second
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
