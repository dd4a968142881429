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
from dstrain.evaluation.typed import TYPED_SCORE, find_typed_warning, is_typed_match
from dstrain.models.tokenizer import Seq2SeqTokenizer
from dstrain.tasks.parsing import respace, respace_plain, restore_strings

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
    typed: str | None = None
    """The hypothesis for the source as typed, where references cut the sources."""


def read_rows(
    hypotheses: Iterable[Hypothesis],
    *,
    tokens: TokenSet,
    tokenizer: Seq2SeqTokenizer,
    task: Task,
    typed: Iterable[Hypothesis] = (),
) -> list[ScoredRow]:
    """The hypotheses with the texts and tokens that are compared.

    The reference of a translation is the text in the data. That of a parse is decoded from its tokens, so that whatever the
    tokenizer changes is changed on both sides; white space is restored on both. But quoted strings of a plain form are those
    in the data: a hypothesis with other white space in them is another parse. `typed` are the hypotheses for sources as
    typed, where they differ.
    """
    typed_texts = {hypothesis.row: tokenizer.decode(list(hypothesis.token_ids)) for hypothesis in typed}
    special = {*tokenizer.tokenizer.all_special_ids, *tokenizer.languages.values()} - {tokenizer.unk_token_id}
    rows = []
    for hypothesis in hypotheses:
        example, target = tokens.examples[hypothesis.row], tokens.target(hypothesis.row).tolist()
        text = tokenizer.decode(list(hypothesis.token_ids))
        row = ScoredRow(
            example=example,
            hypothesis=hypothesis,
            text=_restore_spaces(text, task=task),
            reference=_reference(example, decoded=tokenizer.decode(target), task=task),
            content_ids=[token for token in hypothesis.token_ids if token not in special],
            reference_ids=[token for token in target if token not in special],
            typed=None if tokens.typed is None else typed_texts.get(hypothesis.row, text),
        )
        rows.append(row)
    return rows


def _restore_spaces(text: str, *, task: Task) -> str:
    """The decoded text as one line, with the white space that decoding a parse loses."""
    if task.kind == "parsing":
        text = respace(text) if task.form == "pointer" else respace_plain(text)
    return one_line(text)


def _reference(example: Example, *, decoded: str, task: Task) -> str:
    if task.kind == "translation":
        return one_line(example.raw_target)
    if task.form == "pointer":
        return _restore_spaces(decoded, task=task)
    return one_line(restore_strings(respace_plain(decoded), parse=example.raw_target))


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
        matches = [is_typed_match(row.typed, example=row.example) for row in rows if row.typed is not None]
        scores += [Score(TYPED_SCORE, sum(matches) / len(matches))] if matches else []
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
        warnings += [
            _decoding_warning(rows, tokens=tokens, tokenizer=tokenizer, task=task),
            _typed_warning(rows, tokens=tokens),
        ]
        return [warning for warning in warnings if warning]
    chosen = {row.example.target_language: bleu_tokenizer(row.example.target_language) for row in rows}
    if len({tokenizer for tokenizer, _ in chosen.values()}) > 1:
        warnings.append(
            f"BLEU over all rows mixes the target languages {list(chosen)} with the tokenizer `13a`: compare the BLEU of "
            "each language pair instead"
        )
    return [warning for warning in [*warnings, *(missing for _, missing in chosen.values())] if warning]


def _typed_warning(rows: Sequence[ScoredRow], *, tokens: TokenSet) -> str | None:
    if tokens.typed is None:
        return None
    num_cut = len({row.hypothesis.row for row in rows} & set(tokens.cut_rows))
    return find_typed_warning(num_cut=num_cut, num_rows=len(rows)) if num_cut else None


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


def _decoding_warning(
    rows: Sequence[ScoredRow], *, tokens: TokenSet, tokenizer: Seq2SeqTokenizer, task: Task
) -> str | None:
    decoded = [_restore_spaces(tokenizer.decode(tokens.target(row.hypothesis.row).tolist()), task=task) for row in rows]
    pairs = zip(rows, decoded, strict=True)
    changed = [(row, text) for row, text in pairs if _restore_spaces(row.example.target, task=task) != text]
    if not changed:
        return None
    first, text = changed[0]
    return (
        f"the tokenizer does not reproduce {len(changed)} of {len(rows)} references; the first, {first.example.where}: "
        f"{first.example.target!r} is decoded as {text!r}"
    )
