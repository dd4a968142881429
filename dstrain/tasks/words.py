"""The pointer form whose places are known before the parse: cuts an utterance into words by itself. Works on plain text.

What a model reads in training, in an evaluation and in use is then the same. A word of the parse becomes one pointer, several
joined ones (`<pt-4> <pt-join> <pt-5>` is `5pm` where the utterance was cut into `5` and `pm`), or is spelt out.
"""

from collections.abc import Sequence

import regex

from dstrain.tasks.parsing import JOIN, PointerPair, is_bracket, parse_tokens

_LETTER = r"[\p{L}\p{M}\p{Cf}]"
_WORD = regex.compile(
    rf"""
      ['’]s(?!{_LETTER})                                                # Tom |'s
    | \p{{N}}+(?:\.\p{{N}}+)*(?:(?:st|nd|rd|th|s)(?!{_LETTER}))?        # 7 |pm, 8.30, 20th, 80s
    | (?<!{_LETTER})(?:[cdjlmnst]|qu)['’](?={_LETTER})                  # l' |heure
    | {_LETTER}+(?:(?:\.|['’](?!s(?!{_LETTER}))){_LETTER}+)*            # p.m |., o'clock, don't
    | \X                                                                # every other character alone
    """,
    regex.VERBOSE | regex.IGNORECASE,
)


def cut_words(utterance: str) -> list[str]:
    """The words of an utterance, in order; together they are the utterance without its white space.

    White space, punctuation, the change from digits to letters or back, the clitic `'s` and elided articles (`l'`) divide
    words. Full stops and apostrophes between letters do not, nor do decimal points and the endings of ordinals.
    """
    return [word for token in utterance.split() for word in _WORD.findall(token)]


def point_words(utterance: str, *, parse: str) -> PointerPair:
    """The row in pointer form; `<pt-N>` is word N of `cut_words(utterance)`, counted from 0.

    Neighbouring words of a slot point to neighbouring places where the utterance has them so: first after the place that the
    parse pointed to last, else at a place that it has not pointed to yet. A word without a place is spelt out.

    Raises MalformedParse for a parse that is not well formed.
    """
    tokens, places = parse_tokens(parse), _Places(cut_words(utterance))
    target: list[str] = []
    run: list[str] = []
    for token in tokens:
        if is_bracket(token):
            target += [*places.point(run), token]
            run = []
        else:
            run.append(token)
    return PointerPair(source=" ".join(places.words), target=" ".join(target))


def place_tokens(num_places: int) -> list[str]:
    """The pointers to so many places, and the token that joins them: with them in the vocabulary every place can be named."""
    return [*(f"<pt-{place}>" for place in range(num_places)), JOIN]


class _Places:
    """The words of an utterance, and which of them the parse has pointed to."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self._used: set[int] = set()
        self._next = 0

    def point(self, run: Sequence[str]) -> list[str]:
        """Pointers to words of the parse that follow each other; as many as possible at places that follow each other."""
        target: list[str] = []
        while run:
            spans = self._longest(run)
            for span in spans:
                target += f" {JOIN} ".join(f"<pt-{place}>" for place in span).split()
                self._used.update(span)
                self._next = span.stop
            if not spans:
                target += _spell(run[0]).split()
            run = run[len(spans) or 1 :]
        return target

    def _longest(self, run: Sequence[str]) -> list[range]:
        """The places of the words at the beginning of `run`, a range for each; empty if the first has none."""
        starts = [start for start, word in enumerate(self.words) if run[0].startswith(word)]
        found = [spans for start in starts if (spans := self._match(run, start=start))]
        return max(found, key=self._preference, default=[])

    def _match(self, run: Sequence[str], *, start: int) -> list[range]:
        spans = []
        for word in run:
            stop, rest = start, word
            while rest and stop < len(self.words) and rest.startswith(self.words[stop]):
                rest = rest[len(self.words[stop]) :]
                stop += 1
            if rest:
                break
            spans.append(range(start, stop))
            start = stop
        return spans

    def _preference(self, spans: Sequence[range]) -> tuple[int, bool, bool, int]:
        start = spans[0].start
        return len(spans), start >= self._next, start not in self._used, -start


def _spell(word: str) -> str:
    """The word as it is; one that looks like a pointer in two parts, so that it is not read as one."""
    return word.replace("<pt-", f"< {JOIN} pt-")
