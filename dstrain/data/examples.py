"""Brings rows into the form of their task: the texts that the tokenizer reads. Knows nothing of files or tokens."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dstrain.config.data import Rules
from dstrain.config.recipe import Task
from dstrain.data.bad_rows import OnBad, apply_rule, of_source
from dstrain.data.sources import Row
from dstrain.errors import UserError
from dstrain.tasks.own_task import UnusableText, load_task
from dstrain.tasks.parsing import MalformedParse, PointerPair, UnpointableWord, as_typed, to_pointer
from dstrain.tasks.translation import Languages, choose_prefix
from dstrain.tasks.words import cut_words, point_words


@dataclass(frozen=True, slots=True)
class Example:
    """One row as the model sees it.

    source and target are what the tokenizer reads, with the prefix and in the task's form; raw_source and raw_target are
    the texts in the data. repeat is how often the row appears in an epoch. source begins with source_prefix.
    """

    source: str
    target: str
    raw_source: str
    raw_target: str
    source_language: str | None
    target_language: str | None
    group: str | None
    where: str
    repeat: int = 1
    eval_set: str | None = None
    other_targets: tuple[str, ...] = ()
    """Further references, as they are in the data."""
    source_prefix: str = ""
    data_source: int = 0
    """Number of its data source."""


def build_examples(rows: Iterable[Row], *, task: Task, rules: Rules, on_bad: OnBad) -> Iterator[Example]:
    """The rows in the task's form, in order. Raises UnusableRowError where a rule is `error`."""
    for row in rows:
        pair: PointerPair | None = PointerPair(row.source, row.target)
        if task.has_pointers:
            pair = _point(row, task=task, rules=rules, on_bad=of_source(on_bad, row.data_source))
        elif task.own:
            pair = _convert(row, task=task, rules=rules, on_bad=of_source(on_bad, row.data_source))
        if pair is not None:
            languages = Languages(row.source_language, row.target_language)
            prefix = choose_prefix(task, prefix=row.source_prefix, languages=languages)
            yield Example(
                source=prefix + pair.source,
                target=pair.target,
                raw_source=row.source,
                raw_target=row.target,
                source_language=row.source_language,
                target_language=row.target_language,
                group=row.group,
                where=row.where,
                repeat=row.repeat,
                eval_set=row.eval_set,
                other_targets=row.other_targets,
                source_prefix=prefix,
                data_source=row.data_source,
            )


def prepare_source(text: str, *, task: Task, prefix: str, where: str) -> str:
    """What the model reads for a text that has no target, as it does in an evaluation; one as typed, if references cut those.

    `where` is the place of its row in the data. Raises UnusableText where a class of the user's own refuses the text.
    """
    if task.has_pointers:
        text = as_typed(text) if task.cuts_by_reference else " ".join(cut_words(text))
    elif own := load_task(task):
        text = own.source(text, where=where)
    return prefix + text


def _convert(row: Row, *, task: Task, rules: Rules, on_bad: OnBad) -> PointerPair | None:
    """Both sides by the class of the user's own."""
    own = load_task(task)
    assert own is not None
    try:
        target = own.target(row.target, source=row.source, where=row.where)
        return PointerPair(own.source(row.source, where=row.where), target)
    except UnusableText as error:
        text = f"{row.source}\t{row.target}"
        apply_rule(
            rules.undecodable, where=row.where, reason="undecodable", problem=str(error), text=text, on_bad=on_bad
        )
    return None


def _point(row: Row, *, task: Task, rules: Rules, on_bad: OnBad) -> PointerPair | None:
    if row.other_targets:
        raise UserError(
            f"{row.where}: {1 + len(row.other_targets)} references, but with task.form `pointer` a row has one: keep one, or "
            "set task.form=plain"
        )
    text = f"{row.source}\t{row.target}"
    point = to_pointer if task.cuts_by_reference else point_words
    try:
        return point(row.source, parse=row.target)
    except UnpointableWord as error:
        rule, problem = rules.unpointable, str(error)
        apply_rule(rule, where=row.where, reason="unpointable", problem=problem, text=text, on_bad=on_bad)
    except MalformedParse as error:
        rule, problem = rules.undecodable, str(error)
        apply_rule(rule, where=row.where, reason="undecodable", problem=problem, text=text, on_bad=on_bad)
    return None
