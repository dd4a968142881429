"""Rows with their hypotheses to scores and warnings. Owns which texts and tokens are compared; does not know how
hypotheses are generated and where scores go."""

import math
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from dstrain.config.evaluation import Evaluation
from dstrain.config.metrics import WANTED, own_code, wanted_metrics
from dstrain.config.own_code import own_name
from dstrain.config.recipe import Task
from dstrain.data.examples import Example
from dstrain.data.tokens import TokenSet
from dstrain.evaluation.bleu_tokenizer import Choice, choose_tokenizer
from dstrain.evaluation.generate import Cap, Hypothesis
from dstrain.evaluation.metrics import Score, length_scores, mean_score, one_line, parsing_scores
from dstrain.evaluation.own_metrics import MetricFailed, own_score
from dstrain.evaluation.text_metrics import Corpus, text_scores
from dstrain.evaluation.typed import TYPED_SCORE, find_typed_warning, is_typed_match
from dstrain.models.tokenizer import Seq2SeqTokenizer
from dstrain.run_folder.audit import NOT_IN_TRAINING
from dstrain.tasks.own_task import UnusableText, load_task
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
    others: tuple[tuple[str, list[int]], ...] = ()
    """Text and content tokens of further references; those of parses alone have tokens."""
    is_unread: bool = False
    """Whether the class of the user's own could make nothing of the hypothesis, which stands as the model wrote it."""

    @property
    def references(self) -> list[str]:
        """The texts of all references."""
        return [self.reference, *(text for text, _ in self.others)]

    @property
    def closest(self) -> tuple[str, list[int]]:
        """Text and tokens of the reference that the hypothesis equals, else of the first."""
        first = (self.reference, self.reference_ids)
        return next((each for each in (first, *self.others) if each[0] == self.text), first)


def read_rows(
    hypotheses: Iterable[Hypothesis],
    *,
    tokens: TokenSet,
    tokenizer: Seq2SeqTokenizer,
    task: Task,
    typed: Iterable[Hypothesis] = (),
) -> list[ScoredRow]:
    """The hypotheses with the texts and tokens that are compared.

    The reference of a parse is decoded from its tokens, so that whatever the tokenizer changes is changed on both sides; white
    space is restored on both. But quoted strings of a plain form are those in the data: a hypothesis with other white space
    in them is another parse. The reference of any other task is the text in the data, and a class of the user's own brings the
    hypothesis into that form. `typed` are the hypotheses for sources as typed, where they differ.
    """
    typed_texts = {hypothesis.row: tokenizer.decode(list(hypothesis.token_ids)) for hypothesis in typed}
    special = {*tokenizer.tokenizer.all_special_ids, *tokenizer.languages.values()} - {tokenizer.unk_token_id}
    rows = []
    for hypothesis in hypotheses:
        example, target = tokens.examples[hypothesis.row], tokens.target(hypothesis.row).tolist()
        text = tokenizer.decode(list(hypothesis.token_ids))
        answer = read_answer(text, source=example.raw_source, task=task, where=example.where)
        row = ScoredRow(
            example=example,
            hypothesis=hypothesis,
            text=restore_spaces(text if answer is None else answer, task=task),
            reference=_reference(example.raw_target, decoded=tokenizer.decode(target), task=task),
            content_ids=[token for token in hypothesis.token_ids if token not in special],
            reference_ids=[token for token in target if token not in special],
            typed=None if tokens.typed is None else typed_texts.get(hypothesis.row, text),
            others=tuple(
                _read_other(text, example=example, tokenizer=tokenizer, task=task, special=special)
                for text in example.other_targets
            ),
            is_unread=answer is None,
        )
        rows.append(row)
    return rows


def read_answer(text: str, *, source: str, task: Task, where: str) -> str | None:
    """A decoded hypothesis in the form of the data, by the class of the user's own; None where that makes nothing of it."""
    own = load_task(task)
    try:
        return text if own is None else own.answer(text, source=source, where=where)
    except UnusableText:
        return None


def restore_spaces(text: str, *, task: Task) -> str:
    """The decoded text as one line, with the white space that decoding a parse loses."""
    if task.kind == "parsing":
        text = respace(text) if task.form == "pointer" else respace_plain(text)
    return one_line(text)


def _reference(raw: str, *, decoded: str, task: Task) -> str:
    """The reference in the form in which hypotheses are compared, from its text in the data and from its tokens."""
    if task.kind != "parsing":
        return one_line(raw)
    if task.form == "pointer":
        return restore_spaces(decoded, task=task)
    return one_line(restore_strings(respace_plain(decoded), parse=raw))


def _read_other(
    text: str, *, example: Example, tokenizer: Seq2SeqTokenizer, task: Task, special: set[int | None]
) -> tuple[str, list[int]]:
    """Text and content tokens of a further reference, in the form of the first."""
    if task.kind != "parsing":
        return one_line(text), []
    languages = {"source_language": example.source_language, "target_language": example.target_language}
    _, (ids,) = tokenizer.encode([example.source], [text], **languages)
    reference = _reference(text, decoded=tokenizer.decode(ids), task=task)
    return reference, [token for token in ids if token not in special]


def choose_bleu_tokenizer(rows: Iterable[ScoredRow], *, pinned: str | None) -> Choice:
    """The tokenizer for the references of these rows, with warnings; `pinned` is the recipe's own."""
    references: dict[str | None, list[str]] = {}
    for row in rows:
        references.setdefault(row.example.target_language, []).extend(row.references)
    return choose_tokenizer(references, pinned=pinned)


def score_rows(rows: Sequence[ScoredRow], *, task: Task, evaluation: Evaluation) -> list[Score]:
    """The metrics of the recipe over these rows, and lengths.

    A metric of the user's own that failed has the value NaN, and why.
    """
    scores = _parse_scores(rows, task=task) if task.kind == "parsing" else []
    if wanted := _wanted_items(task, evaluation=evaluation):
        tokenizer = choose_bleu_tokenizer(rows, pinned=evaluation.bleu_tokenizer).name if "bleu" in wanted else "none"
        corpus = Corpus([row.text for row in rows], [row.references for row in rows], tokenizer)
        scores += text_scores(corpus, wanted=wanted)
    for item in own_code(evaluation.metrics):
        scores.append(_own_score(item, rows))
    lengths = [row.hypothesis.num_tokens for row in rows]
    return [*scores, *length_scores(lengths, was_cut=[row.hypothesis.was_cut for row in rows])]


def _wanted_items(task: Task, *, evaluation: Evaluation) -> list[str]:
    """The items of `evaluation.metrics` that are computed from texts alone, those of the task where the recipe says nothing."""
    names = {metric.wanted_as for metric in wanted_metrics(task.base_kind, wanted=evaluation.metrics)}
    if task.kind == "parsing":  # whose own is stricter: white space in quoted strings counts
        names.discard("exact_match")
    return [item for item in evaluation.metrics or WANTED if item in names]


def _own_score(item: str, rows: Sequence[ScoredRow]) -> Score:
    sources = [row.example.raw_source for row in rows]
    places = [row.example.where for row in rows]
    try:
        return own_score(
            item, [row.text for row in rows], [row.references for row in rows], sources=sources, places=places
        )
    except MetricFailed as error:  # hours of training must not be lost with it
        return Score(own_name(item), math.nan, failure=error)


def _parse_scores(rows: Sequence[ScoredRow], *, task: Task) -> list[Score]:
    is_pointer = task.form == "pointer"
    scores = parsing_scores(
        [row.text for row in rows],
        [row.closest[0] for row in rows],
        hypothesis_ids=[row.content_ids for row in rows],
        reference_ids=[row.closest[1] for row in rows],
        sources=[row.example.source.removeprefix(row.example.source_prefix) for row in rows] if is_pointer else None,
        parses=[row.example.raw_target for row in rows] if is_pointer else None,
    )
    matches = [is_typed_match(row.typed, example=row.example) for row in rows if row.typed is not None]
    return [*scores, *([mean_score(TYPED_SCORE, matches)] if matches else [])]


def group_rows(rows: Sequence[ScoredRow], *, held: Set[int] = frozenset()) -> dict[str, list[ScoredRow]]:
    """Rows by evaluation set, then by the group that the data name, and by language pair (`ko-en`) where there are several.

    A pair of the same rows as an evaluation set is left out: it would have the same scores.
    Where some rows have numbers in `held`, those that are in training, the others are a group of their own, the last one.
    """
    sets: dict[str, list[ScoredRow]] = {}
    groups: dict[str, list[ScoredRow]] = {}
    has_pairs = len({_pair(row) for row in rows}) > 1
    named = {row.example.eval_set for row in rows} | {NOT_IN_TRAINING}
    for row in rows:
        if row.example.eval_set is not None:
            sets.setdefault(row.example.eval_set, []).append(row)
        for name in (row.example.group, _pair(row) if has_pairs else None):
            if name is not None:
                groups.setdefault(f"{name} (group)" if name in named else name, []).append(row)
    unseen = [row for row in rows if row.hypothesis.row not in held]
    clean = {NOT_IN_TRAINING: unseen} if 0 < len(unseen) < len(rows) else {}
    of_sets = [[id(row) for row in members] for members in sets.values()]
    named_by_data = {row.example.group for row in rows}
    others = {
        name: members
        for name, members in groups.items()
        if name.removesuffix(" (group)") in named_by_data or [id(row) for row in members] not in of_sets
    }
    return sets | dict(sorted(others.items())) | clean


def _pair(row: ScoredRow) -> str:
    return f"{row.example.source_language}-{row.example.target_language}"


def find_warnings(
    rows: Sequence[ScoredRow],
    *,
    tokens: TokenSet,
    tokenizer: Seq2SeqTokenizer,
    task: Task,
    cap: Cap,
    evaluation: Evaluation,
) -> list[str]:
    """What a reader of the scores should know, one sentence each; empty if there is nothing."""
    warnings = [_cut_warning(rows, cap=cap), find_wrong_start(rows, tokens=tokens, tokenizer=tokenizer)]
    if task.kind == "parsing":
        warnings += [
            _decoding_warning(rows, tokens=tokens, tokenizer=tokenizer, task=task),
            _typed_warning(rows, tokens=tokens),
        ]
    if task.own:
        warnings += [_unread_warning(rows), _answer_warning(rows, tokens=tokens, tokenizer=tokenizer, task=task)]
    if any(metric.name == "bleu" for metric in wanted_metrics(task.base_kind, wanted=evaluation.metrics)):
        warnings += choose_bleu_tokenizer(rows, pinned=evaluation.bleu_tokenizer).warnings
        warnings.append(_references_warning(rows))
    return [warning for warning in warnings if warning]


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


def find_wrong_start(rows: Sequence[ScoredRow], *, tokens: TokenSet, tokenizer: Seq2SeqTokenizer) -> str | None:
    """What is said of hypotheses that do not begin with the token that is forced on them; None if there are none.

    It is the token with which their labels begin: the code of a language, or the `<s>` of BART.
    """
    first = None if tokenizer.languages else tokenizer.first_target_id
    forced = {*tokenizer.languages.values(), first} - {None}
    wrong = []
    for row in rows:
        expected = tuple(tokens.target(row.hypothesis.row)[:1].tolist())
        if expected and forced.issuperset(expected) and row.hypothesis.token_ids[:1] != expected:
            wrong.append(row.hypothesis.row)
    if not wrong:
        return None
    token, so = "the first token of their labels", ""
    if first is None:
        token, so = "the code of their target language", ": they are in another language"
    return f"{len(wrong)} of {len(rows)} hypotheses do not begin with {token}, the first in row {wrong[0]}{so}"


def _unread_warning(rows: Sequence[ScoredRow]) -> str | None:
    unread = [row for row in rows if row.is_unread]
    if not unread:
        return None
    return (
        f"task.kind refuses {len(unread)} of {len(rows)} hypotheses, which are scored as the model wrote them; the first, "
        f"{unread[0].example.where}: {unread[0].text!r}"
    )


def _answer_warning(
    rows: Sequence[ScoredRow], *, tokens: TokenSet, tokenizer: Seq2SeqTokenizer, task: Task
) -> str | None:
    """Of references that a perfect model would not reach."""
    changed = []
    for row in rows:
        decoded = tokenizer.decode(tokens.target(row.hypothesis.row).tolist())
        answer = read_answer(decoded, source=row.example.raw_source, task=task, where=row.example.where)
        if answer is None or one_line(answer) != row.reference:
            changed.append((row, answer))
    if not changed:
        return None
    first, answer = changed[0]
    return (
        f"task.kind does not give back {len(changed)} of {len(rows)} references from what the model learns to write; the first, "
        f"{first.example.where}: {first.reference!r} comes back as {answer!r}"
    )


def _references_warning(rows: Sequence[ScoredRow]) -> str | None:
    numbers = [len(row.references) for row in rows]
    fewest, most = min(numbers), max(numbers)
    if fewest == most:
        return None
    return f"rows have {fewest} to {most} references; nrefs of the signatures is {most}, as a row with fewer repeats its first"


def _decoding_warning(
    rows: Sequence[ScoredRow], *, tokens: TokenSet, tokenizer: Seq2SeqTokenizer, task: Task
) -> str | None:
    decoded = [restore_spaces(tokenizer.decode(tokens.target(row.hypothesis.row).tolist()), task=task) for row in rows]
    pairs = zip(rows, decoded, strict=True)
    changed = [(row, text) for row, text in pairs if restore_spaces(row.example.target, task=task) != text]
    if not changed:
        return None
    first, text = changed[0]
    return (
        f"the tokenizer does not reproduce {len(changed)} of {len(rows)} references; the first, {first.example.where}: "
        f"{first.example.target!r} is decoded as {text!r}"
    )
