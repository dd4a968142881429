"""Hypotheses of parses to scores, and lengths. Owns what a number means; does not know models, tensors and files.

Values are never rounded. Scores are computed over the whole corpus: the mean of batch scores is a different, wrong number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dstrain.errors import UserError
from dstrain.tasks.parsing import from_pointer, is_valid_parse, respace, respace_plain


@dataclass(frozen=True, slots=True)
class Score:
    """One number, with the signature that is needed to compute it again."""

    name: str
    value: float
    signature: str | None = None
    rows: Sequence[Sequence[float]] | None = None
    """What each row adds to it: sacreBLEU's counts, or one number of which it is the mean. None where rows have none."""
    failure: UserError | None = None
    """Why it has no value, if it failed."""


def mean_score(name: str, rows: Sequence[float], *, signature: str | None = None) -> Score:
    """The mean of a number for each row."""
    return Score(name, sum(rows) / len(rows), signature, [(float(number),) for number in rows])


def one_line(text: str) -> str:
    """`text` as one line of a file: line breaks become spaces, white space at the ends is removed.

    Scores are computed on this form and files hold it, so that both agree.
    """
    return " ".join(text.splitlines()).strip()


def parsing_scores(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    hypothesis_ids: Sequence[Sequence[int]],
    reference_ids: Sequence[Sequence[int]],
    sources: Sequence[str] | None = None,
    parses: Sequence[str] | None = None,
) -> list[Score]:
    """Rates over the rows, 0 to 1, and one count:

    - `exact_match`: decoded hypothesis equals decoded reference, both stripped and with white space restored. In the plain
      form white space inside quoted strings counts.
    - `exact_match_tokens`: token ids are equal; both sides come without special tokens.
    - `exact_match_disagreements`: number of rows on which these two differ.
    - `exact_match_parse`: pointer form only (`sources` are the re-spaced utterances without prefix, `parses` the parses
      as they are in the data): equal after the pointers are replaced by words, white space aside.
    - `valid_brackets`: the hypothesis is one well-formed parse.

    Raises UserError for an empty corpus, ValueError for sides of different length.
    """
    check_pairs(hypotheses, references)
    restore = respace_plain if sources is None else respace
    spaced = [restore(text) for text in hypotheses]
    by_text = [text == restore(answer) for text, answer in zip(spaced, references, strict=True)]
    by_ids = [list(ids) == list(answer) for ids, answer in zip(hypothesis_ids, reference_ids, strict=True)]
    scores = [
        mean_score("exact_match", by_text),
        mean_score("exact_match_tokens", by_ids),
        Score("exact_match_disagreements", float(sum(a != b for a, b in zip(by_text, by_ids, strict=True)))),
    ]
    if sources is not None and parses is not None:
        undone = [from_pointer(text, source=source) for text, source in zip(spaced, sources, strict=True)]
        by_parse = [text.split() == parse.split() for text, parse in zip(undone, parses, strict=True)]
        scores.append(mean_score("exact_match_parse", by_parse))
    return [*scores, mean_score("valid_brackets", [is_valid_parse(text) for text in spaced])]


def length_scores(num_tokens: Sequence[int], *, was_cut: Sequence[bool]) -> list[Score]:
    """`gen_len`: mean length of the hypotheses in tokens; `hit_cap_rate`: share of them that the length cap ended, 0 to 1.

    `num_tokens` counts as the Hugging Face translation and summarization examples do: every token of the generated
    sequence that is not padding. That includes the end token, the language code and the decoder's start token, except for
    T5 and Marian, whose start token is the padding token.
    """
    if not num_tokens:
        raise UserError("no hypotheses to measure: the evaluation set is empty; check data.eval")
    return [
        Score("gen_len", sum(num_tokens) / len(num_tokens)),
        Score("hit_cap_rate", sum(was_cut) / len(was_cut)),
    ]


def check_pairs(hypotheses: Sequence[str], references: Sequence[object]) -> None:
    """Raise UserError for an empty corpus, ValueError for sides of different length."""
    if len(hypotheses) != len(references):
        raise ValueError(f"every hypothesis needs its reference: found {len(hypotheses)} and {len(references)}")
    if not hypotheses:
        raise UserError("no hypotheses to score: the evaluation set is empty; check data.eval")
