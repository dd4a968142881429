"""Encodes texts in which a control token is spelt, such as `</s>` on a web page, so that it stays text.

Tokenizer classes read such text as the token itself, in the middle of a sequence. Their own switch for this,
`split_special_tokens`, is not enough: classes in Python then split the task's tokens too, and in a Rust tokenizer's unigram
model the control tokens are pieces like any other.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unicodedata import normalize

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
"""A byte in the vocabulary of a sentencepiece model."""

STAND_IN = "\U000f0000"
"""Begins the names of control tokens in a tokenizer that must not find them: a character of private use."""


class ControlTokens:
    """The control tokens of a tokenizer: special tokens, languages, and pieces that stand for bytes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, languages: Sequence[str]) -> None:
        added = tokenizer.added_tokens_decoder
        special = {token.content for token in added.values() if token.special}
        special |= {*tokenizer.all_special_tokens, *languages}
        self._end: int = tokenizer.eos_token_id
        self._ordinary = {token.content: i for i, token in added.items() if token.content not in special}
        self._backend = None
        if tokenizer.is_fast:
            self._backend, special = _without(tokenizer.backend_tokenizer, tokens=special)
        self._spelt = any_of(special)
        # most texts have none of these characters; looking for two hundred codes at each letter is slow
        marks = {next((each for each in token if not each.isalnum()), token[0]) for token in special if token}
        self._marks = re.compile(f"[{re.escape(''.join(sorted(marks)))}]")

    def are_in(self, text: str) -> bool:
        """Whether a text spells a control token, also with characters that normalisation makes equal."""
        return self._finds(text) or (not text.isascii() and self._finds(normalize("NFKC", text)))

    def _finds(self, text: str) -> bool:
        return self._marks.search(text) is not None and self._spelt.search(text) is not None

    def encode(self, texts: Sequence[str], *, call: Callable[..., list[list[int]]]) -> list[list[int]]:
        """Ids of texts, with the special tokens of both ends, but without any control token between them.

        call is the tokenizer's own call for this side, and takes its options.
        """
        (ends,) = call([""])
        head = (
            1 if ends and ends[0] != self._end else 0
        )  # a language or `<s>`; the other special tokens are behind the text
        return [[*ends[:head], *self._encode_text(text, call=call), *ends[head:]] for text in texts]

    def _encode_text(self, text: str, *, call: Callable[..., list[list[int]]]) -> list[int]:
        if self._backend is not None:
            return list(self._backend.encode(text, add_special_tokens=False).ids)
        ids: list[int] = []
        # a class in Python would split the ordinary added tokens too
        for part in re.split(f"({any_of(self._ordinary).pattern})", text) if self._ordinary else [text]:
            if part in self._ordinary:
                ids.append(self._ordinary[part])
            elif part:
                ids += call([part], split_special_tokens=True, add_special_tokens=False)[0]
        return ids


def any_of(tokens: Sequence[str] | set[str] | Mapping[str, Any]) -> re.Pattern[str]:
    """A pattern that finds each of some tokens in a text, the longest first."""
    # a lookahead for the first characters, because trying every token at every position is slow
    first = re.escape("".join(sorted({token[0] for token in tokens if token})))
    longest_first = sorted(filter(None, tokens), key=lambda token: (-len(token), token))
    return re.compile(f"(?=[{first}])(?:{'|'.join(map(re.escape, longest_first))})")


def _without(backend: Tokenizer, *, tokens: set[str]) -> tuple[Tokenizer, set[str]]:
    """A copy of a Rust tokenizer that does not find the tokens in a text, and all that it does not find; ids stay."""
    content = json.loads(backend.to_str())
    model, hidden = content["model"], set(tokens)
    if model["type"] == "Unigram":
        if not model.get("byte_fallback"):
            hidden |= {piece for piece, _ in model["vocab"] if BYTE_PIECE.fullmatch(piece)}
        model["vocab"] = [[_renamed(piece, hidden), score] for piece, score in model["vocab"]]
    else:
        model["vocab"] = {_renamed(piece, hidden): i for piece, i in model["vocab"].items()}
        if model.get("unk_token") in hidden:
            model["unk_token"] = _renamed(model["unk_token"], hidden)
    for token in content["added_tokens"]:
        token["content"] = _renamed(token["content"], hidden)
    content["post_processor"] = None  # it names the tokens
    return Tokenizer.from_str(json.dumps(content)), hidden


def _renamed(piece: str, hidden: set[str]) -> str:
    return STAND_IN + piece if piece in hidden else piece
