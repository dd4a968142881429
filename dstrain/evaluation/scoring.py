"""Rows with their hypotheses to scores and warnings. Owns which texts and tokens are compared; does not know how
hypotheses are generated and where scores go."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dstrain.config.recipe import Task
from dstrain.data.examples import Example
from dstrain.data.tokens import TokenSet
from dstrain.evaluation.generate import Cap, Hypothesis
from dstrain.evaluation.metrics import (
    Score,
    bleu_tokenizer,
    length_scores,
    one_line,
    parsing_scores,
    translation_scores,
)
from dstrain.models.tokenizer import Seq2SeqTokenizer
from dstrain.tasks.parsing import respace

HIT_CAP_WARNING = 0.01
"""Share of hypotheses ended by the length cap above which a warning is added."""


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A row with its hypothesis, both as text and as content tokens (special tokens dropped, unk kept)."""

    example: Example
    hypothesis: Hypothesis
    text: str
    reference: str
    content_ids: list[int]
    reference_ids: list[int]


def read_rows(
    hypotheses: Iterable[Hypothesis], *, tokens: TokenSet, tokenizer: Seq2SeqTokenizer, task: Task
) -> list[ScoredRow]:
    """The hypotheses with the texts and tokens that are compared.

    The reference of a translation is the text in the data. That of a parse is decoded from its tokens, so that whatever the
    tokenizer changes is changed on both sides; white space is restored on both.
    """
    special = {*tokenizer.tokenizer.all_special_ids, *tokenizer.languages.values()} - {tokenizer.unk_token_id}
    is_parse = task.kind == "parsing"
    rows = []
    for hypothesis in hypotheses:
        example, target = tokens.examples[hypothesis.row], tokens.target(hypothesis.row).tolist()
        text = tokenizer.decode(list(hypothesis.token_ids))
        row = ScoredRow(
            example=example,
            hypothesis=hypothesis,
            text=one_line(respace(text) if is_parse else text),
            reference=one_line(respace(tokenizer.decode(target)) if is_parse else example.raw_target),
            content_ids=[token for token in hypothesis.token_ids if token not in special],
            reference_ids=[token for token in target if token not in special],
        )
        rows.append(row)
    return rows


def score_rows(rows: Sequence[ScoredRow], *, task: Task) -> list[Score]:
    """The task's metrics over these rows, and lengths.

    BLEU over several target languages uses the tokenizer `13a`, unless they all have the same tokenizer.
    """
    texts, references = [row.text for row in rows], [row.reference for row in rows]
    if task.kind == "translation":
        languages = {bleu_tokenizer(row.example.target_language)[0]: row.example.target_language for row in rows}
        language = next(iter(languages.values())) if len(languages) == 1 else None
        scores = translation_scores(texts, references, target_language=language)
    else:
        is_pointer = task.form == "pointer"
        scores = parsing_scores(
            texts,
            references,
            hypothesis_ids=[row.content_ids for row in rows],
            reference_ids=[row.reference_ids for row in rows],
            sources=[row.example.source.removeprefix(row.example.source_prefix) for row in rows]
            if is_pointer
            else None,
            parses=[row.example.raw_target for row in rows] if is_pointer else None,
        )
    lengths = [row.hypothesis.num_tokens for row in rows]
    return [*scores, *length_scores(lengths, was_cut=[row.hypothesis.was_cut for row in rows])]


def group_rows(rows: Sequence[ScoredRow]) -> dict[str, list[ScoredRow]]:
    """Rows by the group that the data name, and by language pair (`ko-en`) where there are several."""
    pairs = [f"{row.example.source_language}-{row.example.target_language}" for row in rows]
    has_pairs = len(set(pairs)) > 1
    groups: dict[str, list[ScoredRow]] = {}
    for row, pair in zip(rows, pairs, strict=True):
        if row.example.group is not None:
            groups.setdefault(row.example.group, []).append(row)
        if has_pairs:
            groups.setdefault(pair, []).append(row)
    return dict(sorted(groups.items()))


def find_warnings(
    rows: Sequence[ScoredRow], *, tokens: TokenSet, tokenizer: Seq2SeqTokenizer, task: Task, cap: Cap
) -> list[str]:
    """What a reader of the scores should know, one sentence each; empty if there is nothing."""
    warnings = [_cut_warning(rows, cap=cap), _language_warning(rows, tokens=tokens, tokenizer=tokenizer)]
    if task.kind == "parsing":
        return [warning for warning in [*warnings, _decoding_warning(rows)] if warning]
    chosen = {row.example.target_language: bleu_tokenizer(row.example.target_language) for row in rows}
    if len({tokenizer for tokenizer, _ in chosen.values()}) > 1:
        warnings.append(
            f"BLEU over all rows mixes the target languages {list(chosen)} with the tokenizer `13a`: compare the BLEU of "
            "each language pair instead"
        )
    return [warning for warning in [*warnings, *(missing for _, missing in chosen.values())] if warning]


def _cut_warning(rows: Sequence[ScoredRow], *, cap: Cap) -> str | None:
    num_cut = sum(row.hypothesis.was_cut for row in rows)
    if num_cut <= HIT_CAP_WARNING * len(rows):
        return None
    return (
        f"{num_cut} of {len(rows)} hypotheses were cut at {cap.max_new_tokens} tokens ({cap.reason}): either they "
        "never end, or evaluation.max_new_tokens is too low"
    )


def _language_warning(rows: Sequence[ScoredRow], *, tokens: TokenSet, tokenizer: Seq2SeqTokenizer) -> str | None:
    wrong = []
    for row in rows:
        language = row.example.target_language
        code = None if language is None else tokenizer.language_id(language)
        starts_with_code = code is not None and int(tokens.target(row.hypothesis.row)[0]) == code
        if starts_with_code and row.hypothesis.token_ids[:1] != (code,):
            wrong.append(row.hypothesis.row)
    if not wrong:
        return None
    return (
        f"{len(wrong)} of {len(rows)} hypotheses do not begin with the code of their target language, the first in row "
        f"{wrong[0]}: they are in another language"
    )


def _decoding_warning(rows: Sequence[ScoredRow]) -> str | None:
    changed = [row for row in rows if respace(one_line(row.example.target)).split() != row.reference.split()]
    if not changed:
        return None
    first = changed[0]
    return (
        f"the tokenizer does not reproduce {len(changed)} of {len(rows)} references; the first, {first.example.where}: "
        f"{first.example.target!r} is decoded as {first.reference!r}"
    )
