"""Metrics of words that hypothesis and reference share: ROUGE (Lin 2004) and SQuAD's F1. Each row counts alike.

Google's rouge-score is not used: it drops every character but a to z and digits, so that a Korean text scores 0 against itself.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import pairwise

from dstrain.evaluation.words import answer_words, words_of

Rows = Sequence[Sequence[str]]


def rouge_f1(hypotheses: Sequence[str], references: Rows) -> dict[str, list[float]]:
    """F1 of each row with its closest reference, 0 to 1, under `rouge_l`, `rouge_1` and `rouge_2`; two empty texts score 0."""
    split = {text: words_of(text) for text in {*hypotheses, *(text for texts in references for text in texts)}}
    compared: dict[str, Callable[[list[str], list[str]], float]] = {
        "rouge_l": lambda one, other: _f1(longest_common(one, other), len(one), len(other)),
        "rouge_1": _shared_f1,
        "rouge_2": lambda one, other: _shared_f1(list(pairwise(one)), list(pairwise(other))),
    }
    return {
        name: [
            max(compare(split[hypothesis], split[text]) for text in texts)
            for hypothesis, texts in zip(hypotheses, references, strict=True)
        ]
        for name, compare in compared.items()
    }


def token_f1(hypotheses: Sequence[str], references: Rows) -> list[float]:
    """SQuAD's F1 of each row with its closest reference, 0 to 1; two texts without any word are equal."""

    def compare(hypothesis: str, reference: str) -> float:
        one, other = answer_words(hypothesis), answer_words(reference)
        return _shared_f1(one, other) if one and other else float(one == other)

    return [
        max(compare(hypothesis, text) for text in texts)
        for hypothesis, texts in zip(hypotheses, references, strict=True)
    ]


def longest_common(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest common subsequence, by the bits of whole numbers (Hyyrö 2004)."""
    places: Counter[str] = Counter()
    for place, word in enumerate(one):
        places[word] |= 1 << place
    every = (1 << len(one)) - 1
    left = every  # a cleared bit stands for one more word in common
    for word in other:
        matched = left & places[word]
        left = ((left + matched) | (left - matched)) & every
    return len(one) - left.bit_count()


def _shared_f1(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    return _f1((Counter(one) & Counter(other)).total(), len(one), len(other))


def _f1(shared: int, num_one: int, num_other: int) -> float:
    return 2 * shared / (num_one + num_other) if shared else 0.0
