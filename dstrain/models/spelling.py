"""The pieces of a tokenizer that texts can be spelt with: those of one character, and those of one byte."""

import re
import string
import unicodedata
from collections.abc import Iterable

from dstrain.models.tokenizer import Seq2SeqTokenizer

BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
WORD_START = "▁"
"""What sentencepiece writes for a space."""

ALWAYS = frozenset(string.printable)


def spelling_ids(tokenizer: Seq2SeqTokenizer, *, occurring: Iterable[int]) -> list[int]:
    """Ids that must be kept beside those that occur, so that any text of the same scripts can still be written.

    They are special, language and added tokens, byte pieces, and pieces of one character: those of the scripts that the
    occurring pieces are written in, punctuation, and ASCII.
    """
    wrapped = tokenizer.tokenizer
    pieces: dict[str, int] = wrapped.get_vocab()
    by_id = {token_id: piece for piece, token_id in pieces.items()}
    scripts = {_script(character) for token_id in occurring for character in by_id.get(token_id, "")}
    kept = {*wrapped.all_special_ids, *wrapped.added_tokens_decoder, *tokenizer.languages.values()}
    for piece, token_id in pieces.items():
        is_character = len(piece) == 1 and (piece in ALWAYS or piece == WORD_START or _script(piece) in scripts | {""})
        if is_character or BYTE_PIECE.fullmatch(piece):
            kept.add(token_id)
    return sorted(kept)


def _script(character: str) -> str:
    """`LATIN`, `HANGUL`, `CJK` and so on: the first word of the character's Unicode name; empty for punctuation."""
    if unicodedata.category(character)[0] in "PZ":
        return ""
    return unicodedata.name(character, "unnamed").partition(" ")[0]
