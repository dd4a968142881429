"""Texts of any script as words, for metrics that count words. In scripts without spaces each character is a word."""

import regex

from dstrain.tasks.scripts import WITHOUT_SPACES

_WORD = regex.compile(rf"[{WITHOUT_SPACES}]\p{{M}}*|[[\p{{L}}\p{{M}}\p{{N}}]--[{WITHOUT_SPACES}]]+", regex.V1)
_PUNCTUATION = regex.compile(r"[\p{P}$+<=>^`|~]")
_ARTICLE = regex.compile(r"\b(?:a|an|the)\b")
_CHARACTER = regex.compile(rf"[{WITHOUT_SPACES}]\p{{M}}*|[^{WITHOUT_SPACES}]+")


def words_of(text: str) -> list[str]:
    """The lower-cased runs of letters and digits; for ASCII those of Google's rouge-score without its stemmer."""
    return list(_WORD.findall(text.lower()))


def answer_words(text: str) -> list[str]:
    """The words of an answer as SQuAD compares them: lower-cased, without punctuation and the articles a, an and the."""
    bare = _ARTICLE.sub(" ", _PUNCTUATION.sub("", text.lower()))
    return [word for token in bare.split() for word in _CHARACTER.findall(token)]
