"""Converts bracketed parses to their pointer form and back. Works on plain text; knows nothing of tokenizers or files.

A decoupled parse keeps only the words that fill slots (`[IN:CREATE_CALL [SL:CONTACT Nicholas ] ]`). The pointer form
replaces each of them by its position in the utterance (`<pt-1>`), so that a model need not spell words. The published rule is
here: Held et al., "DAMP: Doubly Aligned Multilingual Parser for Task-Oriented Dialogue", ACL 2023, as in the model
t5-small-pointer-mtop. It cuts the utterance by means of the parse; `words.py` holds a rule that needs the utterance alone.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

JOIN = "<pt-join>"
"""Stands between two pointers, or parts of a word that is spelt out, that are one word of the parse."""

_POINTER = re.compile(r"<pt-([0-9]+)>")
_LABEL = re.compile(r"\[(?:IN|SL):[^\s\[\]<>]+")
_STRUCTURE = re.compile(rf"({_LABEL.pattern}|<pt-[0-9]+>|{JOIN}|\])")

_QUOTED = r"""(?<!\w)(?:\w{0,2}|[A-Z]+)(?P<quote>['"`])(?:\\.|(?P=quote){2}|(?!(?P=quote)|\\|\[(?:IN|SL):).)*(?P=quote)(?!\w)"""
# a string of SQL or code, N'it''s' and "a \" b" included; neither an apostrophe nor quotation marks of two slots
_STRING = re.compile(_QUOTED, re.DOTALL)
_STRING_OR_STRUCTURE = re.compile(rf"{_QUOTED}|{_STRUCTURE.pattern}", re.DOTALL)
_STRING_OR_SPACE = re.compile(rf"{_QUOTED}|\s+", re.DOTALL)


class MalformedParse(ValueError):
    """A parse whose brackets or labels are not well formed."""


class UnpointableWord(ValueError):
    """A word of the parse cannot be replaced by a position in the utterance."""


@dataclass(frozen=True, slots=True)
class PointerPair:
    """A row in pointer form: the re-spaced utterance, without prefix, and the parse with pointers into it."""

    source: str
    target: str


def parse_tokens(parse: str) -> list[str]:
    """The brackets and words of a parse. Raises MalformedParse for one that is not well formed."""
    tokens = parse.split()
    fault = _find_fault(tokens)
    if fault:
        raise MalformedParse(f"not a parse: {fault}: `{parse}`")
    return tokens


def is_bracket(token: str) -> bool:
    """Whether a token of a well-formed parse opens or closes an intent or a slot; the others are words."""
    return token.startswith(("[", "]"))


def to_pointer(utterance: str, *, parse: str) -> PointerPair:
    """The row in the published pointer form; `<pt-N>` is white-space token N of the re-spaced utterance, counted from 0.

    Spaces are put around each word of the parse where it first occurs after the word before it, or else where it first
    occurs at all, even inside a longer word (`messaged` becomes `me ssaged`). A repeated word points at its positions from
    left to right, and again at the last one when all are used.

    Raises UnpointableWord for a word that is not in the utterance, MalformedParse for a parse that is not well formed.
    """
    tokens = parse_tokens(parse)
    source = _separate_words(utterance, words=[token for token in tokens if not is_bracket(token)])
    positions: dict[str, list[int]] = {}
    for position, word in enumerate(source.split()):
        positions.setdefault(word, []).append(position)
    target = []
    for token in tokens:
        if is_bracket(token):
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

    `source` is the utterance as the model reads it, without prefix. `target` may be decoded model output that has lost spaces.
    """
    words = source.split()
    parse: list[str] = []
    is_joined = False
    for token in respace(target).split():
        if token == JOIN:
            is_joined = bool(parse)
            continue
        pointer = _POINTER.fullmatch(token)
        word = words[int(pointer[1])] if pointer and int(pointer[1]) < len(words) else token
        if is_joined:
            word = parse.pop() + word
        parse.append(word)
        is_joined = False
    return " ".join(parse)


def find_dangling(target: str, *, source: str) -> list[str]:
    """The pointers of a parse beyond the words of `source`, which `from_pointer` leaves as they are."""
    num_words = len(source.split())
    return [f"<pt-{index}>" for index in _POINTER.findall(target) if int(index) >= num_words]


def as_typed(utterance: str) -> str:
    """The utterance with single spaces, as a model of the published form reads one without a parse."""
    return " ".join(utterance.split())


def respace(text: str) -> str:
    """Text with single spaces around `[IN:X`, `[SL:X`, `<pt-N>`, `<pt-join>` and `]`, which decoding may have lost.

    A plain word directly after a label (`[SL:TODObuy`) cannot be distinguished from it, and is left as it is.
    """
    return " ".join(_STRUCTURE.sub(r" \1 ", text).split())


def respace_plain(text: str) -> str:
    """`respace` for the plain form: white space inside quoted strings (`'A  B'`) stays as it is."""
    spaced = _STRING_OR_STRUCTURE.sub(lambda match: match[0] if match["quote"] else f" {match[0]} ", text)
    return _STRING_OR_SPACE.sub(lambda match: match[0] if match["quote"] else " ", spaced).strip()


def restore_strings(decoded: str, *, parse: str) -> str:
    """A decoded plain parse with its quoted strings as they are in the data, since many tokenizers change white space.

    A line break inside a string becomes `\\n`. A text with another number of strings is returned as it is.
    """
    strings = ["\\n".join(match[0].splitlines()) for match in _STRING.finditer(parse)]
    if len(strings) != len(_STRING.findall(decoded)):
        return decoded
    left = iter(strings)
    return _STRING.sub(lambda match: next(left), decoded)


def is_valid_parse(text: str) -> bool:
    """Whether the text is one intent with all brackets closed; missing spaces do not matter."""
    return _find_fault(respace(text).split()) is None


def task_tokens(targets: Iterable[str]) -> list[str]:
    """Distinct `[IN:X`, `[SL:X`, `<pt-N>` and `<pt-join>` in targets, for the tokenizer: labels by name, pointers by number."""
    labels: set[str] = set()
    pointers: set[int] = set()
    has_joins = False
    for target in targets:
        labels.update(_LABEL.findall(target))
        pointers.update(int(number) for number in _POINTER.findall(target))
        has_joins = has_joins or JOIN in target
    return [*sorted(labels), *(f"<pt-{number}>" for number in sorted(pointers)), *([JOIN] if has_joins else [])]


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
    return f"{depth} bracket{' is' if depth == 1 else 's are'} not closed" if depth else None
