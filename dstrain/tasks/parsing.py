"""Converts bracketed parses to their pointer form and back. Works on plain text; knows nothing of tokenizers or files.

A decoupled parse keeps only the words that fill slots (`[IN:CREATE_CALL [SL:CONTACT Nicholas ] ]`). The pointer form
replaces each of them by its position in the utterance (`<pt-1>`), so that a model need not spell words. Rules: Held et al.,
"DAMP: Doubly Aligned Multilingual Parser for Task-Oriented Dialogue", ACL 2023, as in the model t5-small-pointer-mtop.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_POINTER = re.compile(r"<pt-([0-9]+)>")
_LABEL = re.compile(r"\[(?:IN|SL):[^\s\[\]<>]+")
_STRUCTURE = re.compile(rf"({_LABEL.pattern}|<pt-[0-9]+>|\])")


class MalformedParse(ValueError):
    """A parse whose brackets or labels are not well formed."""


class UnpointableWord(ValueError):
    """A word of the parse cannot be replaced by a position in the utterance."""


@dataclass(frozen=True, slots=True)
class PointerPair:
    """A row in pointer form: the re-spaced utterance, without prefix, and the parse with pointers into it."""

    source: str
    target: str


def to_pointer(utterance: str, *, parse: str) -> PointerPair:
    """The row in pointer form; `<pt-N>` is white-space token N of the re-spaced utterance, counted from 0.

    Spaces are put around each word of the parse where it first occurs after the word before it, or else where it first
    occurs at all, even inside a longer word (`messaged` becomes `me ssaged`). A repeated word points at its positions from
    left to right, and again at the last one when all are used.

    Raises UnpointableWord for a word that is not in the utterance, MalformedParse for a parse that is not well formed.
    """
    tokens = parse.split()
    fault = _find_fault(tokens)
    if fault:
        raise MalformedParse(f"not a parse: {fault}: `{parse}`")
    source = _separate_words(utterance, words=[token for token in tokens if not _is_bracket(token)])
    positions: dict[str, list[int]] = {}
    for position, word in enumerate(source.split()):
        positions.setdefault(word, []).append(position)
    target = []
    for token in tokens:
        if _is_bracket(token):
            target.append(token)
        elif token in positions:
            left = positions[token]
            target.append(f"<pt-{left.pop(0) if len(left) > 1 else left[0]}>")
        else:
            raise UnpointableWord(
                f"word `{token}` of the parse is split in the utterance by a shorter word of the parse: `{source}`; correct "
                f"the order of the words in the parse, or use the plain form"
            )
    return PointerPair(source=" ".join(source.split()), target=" ".join(target))


def _separate_words(utterance: str, *, words: Iterable[str]) -> str:
    source, cursor = utterance, 0
    for word in words:
        start = source.find(word, cursor)
        if start < 0:
            start = source.find(word)
        if start < 0:
            raise UnpointableWord(
                f"word `{word}` of the parse is not in the utterance `{utterance}`; correct the row, or use the plain form"
            )
        end = start + len(word)
        source = f"{source[:start]} {word} {source[end:]}"
        cursor = end + 2  # two spaces were inserted
    return source


def from_pointer(target: str, *, source: str) -> str:
    """The parse with words in place of pointers and single spaces; a pointer beyond the source is left as it is.

    `source` is the re-spaced utterance without prefix. `target` may be decoded model output that has lost spaces.
    """
    words = source.split()

    def word_at(pointer: re.Match[str]) -> str:
        position = int(pointer[1])
        return words[position] if position < len(words) else pointer[0]

    return " ".join(_POINTER.sub(word_at, token) for token in respace(target).split())


def respace(text: str) -> str:
    """Text with single spaces around `[IN:X`, `[SL:X`, `<pt-N>` and `]`, which decoding may have lost.

    A plain word directly after a label (`[SL:TODObuy`) cannot be distinguished from it, and is left as it is.
    """
    return " ".join(_STRUCTURE.sub(r" \1 ", text).split())


def is_valid_parse(text: str) -> bool:
    """Whether the text is one intent with all brackets closed; missing spaces do not matter."""
    return _find_fault(respace(text).split()) is None


def task_tokens(targets: Iterable[str]) -> list[str]:
    """Distinct `[IN:X`, `[SL:X` and `<pt-N>` in targets, for the tokenizer: labels by name, then pointers by number."""
    labels: set[str] = set()
    pointers: set[int] = set()
    for target in targets:
        labels.update(_LABEL.findall(target))
        pointers.update(int(number) for number in _POINTER.findall(target))
    return sorted(labels) + [f"<pt-{number}>" for number in sorted(pointers)]


def _is_bracket(token: str) -> bool:
    return token.startswith(("[", "]"))


def _find_fault(tokens: list[str]) -> str | None:
    """Why the tokens are not one well-formed parse, or None if they are."""
    if not tokens or not tokens[0].startswith("[IN:"):
        return f"it starts with `{tokens[0] if tokens else ''}`, not with an intent `[IN:…`"
    depth = 0
    for number, token in enumerate(tokens, start=1):
        if _LABEL.fullmatch(token):
            depth += 1
        elif token == "]":
            depth -= 1
        elif "[" in token or "]" in token:
            return f"token {number}, `{token}`, is neither `[IN:…`, `[SL:…` nor `]`; put spaces around every bracket"
        if depth == 0 and number < len(tokens):
            return f"the first intent closes at token {number} of {len(tokens)}; one parse has one root"
    return f"{depth} brackets are not closed" if depth else None
