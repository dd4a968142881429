"""The scores of an evaluation, as a table: name, tasks, unit and meaning. Computes none of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dstrain.config.own_code import is_own_code, own_name

KINDS = ("translation", "parsing", "text")


@dataclass(frozen=True, slots=True)
class Metric:
    """A score under the name that it has in metrics.jsonl, in score files and on the card."""

    name: str
    tasks: tuple[str, ...]
    """Kinds of tasks for which it is computed by default; a class of the user's own is of kind `text`."""
    unit: str
    meaning: str
    can_choose: bool = False
    """Whether `evaluation.best_metric` may name it."""
    breaks_ties: bool = False
    """Whether it decides between evaluations with the same `best_metric`, as every metric does that can choose."""
    wanted_as: str | None = None
    """The item of `evaluation.metrics` that asks for it, for any task; None if every evaluation of its tasks has it."""
    lower_is_better: bool = False
    has_rows: bool = True
    """Whether it is computed from numbers of each row, so that it has an interval."""


METRICS = (
    Metric(
        "bleu",
        ("translation",),
        "0 to 100",
        "Corpus BLEU by sacreBLEU, with its signature.",
        can_choose=True,
        wanted_as="bleu",
    ),
    Metric(
        "chrf",
        ("translation",),
        "0 to 100",
        "Corpus chrF by sacreBLEU, with its signature.",
        can_choose=True,
        wanted_as="chrf",
    ),
    Metric(
        "ter",
        (),
        "errors per 100 words",
        "Corpus TER by sacreBLEU, with its signature. Lower is better.",
        can_choose=True,
        wanted_as="ter",
        lower_is_better=True,
    ),
    Metric(
        "rouge_l",
        ("text",),
        "0 to 1",
        "ROUGE-L: F1 of the longest common subsequence of words with the closest reference, averaged over the rows. Words are "
        "lower-cased, not stemmed, and of any script; in scripts without spaces each character is a word.",
        can_choose=True,
        wanted_as="rouge",
    ),
    Metric(
        "rouge_1",
        ("text",),
        "0 to 1",
        "ROUGE-1: the same for single words.",
        can_choose=True,
        wanted_as="rouge",
    ),
    Metric(
        "rouge_2",
        ("text",),
        "0 to 1",
        "ROUGE-2: the same for pairs of neighbouring words.",
        can_choose=True,
        wanted_as="rouge",
    ),
    Metric(
        "token_f1",
        (),
        "0 to 1",
        "F1 of the words that hypothesis and closest reference share, averaged over the rows: that of SQuAD, without case, "
        "punctuation and the articles a, an and the. In scripts without spaces each character is a word.",
        can_choose=True,
        wanted_as="token_f1",
    ),
    Metric(
        "exact_match",
        ("parsing", "text"),
        "0 to 1",
        "Share of rows whose decoded hypothesis equals the decoded reference. For parsing white space is restored on both "
        "sides, and in the plain form the quoted strings of the reference are those in the data, white space included.",
        can_choose=True,
        wanted_as="exact_match",
    ),
    Metric(
        "accuracy",
        (),
        "0 to 1",
        "Share of rows whose hypothesis equals a reference but for case and white space: for labels and short answers.",
        can_choose=True,
        wanted_as="accuracy",
    ),
    Metric(
        "exact_match_tokens",
        ("parsing",),
        "0 to 1",
        "Share of rows whose token ids equal those of the reference, special tokens aside.",
        breaks_ties=True,
    ),
    Metric(
        "exact_match_disagreements",
        ("parsing",),
        "rows",
        "Number of rows on which `exact_match` and `exact_match_tokens` differ.",
        has_rows=False,
    ),
    Metric(
        "exact_match_parse",
        ("parsing",),
        "0 to 1",
        "Share of rows whose hypothesis equals the parse in the data after pointers are replaced by words, white space "
        "aside. Pointer form only.",
        breaks_ties=True,
    ),
    Metric(
        "valid_brackets",
        ("parsing",),
        "0 to 1",
        "Share of rows whose hypothesis is one well-formed parse.",
        breaks_ties=True,
    ),
    Metric(
        "exact_match_typed",
        ("parsing",),
        "0 to 1",
        "Share of rows whose hypothesis for the utterance as typed, not cut at the words of the reference, equals the "
        "parse in the data after pointers are replaced by words. Segmentation `published` only.",
    ),
    Metric(
        "gen_len",
        KINDS,
        "tokens",
        "Mean length of the hypotheses. Every token but padding counts, as in the Hugging Face examples: the end, language and "
        "start tokens too. So a hypothesis that was cut at 12 tokens counts 13 where the start token is `</s>` (M2M100, NLLB, "
        "mBART), 12 where it is padding (Marian, T5, mT5), and fewer if padding was generated.",
        has_rows=False,
    ),
    Metric(
        "hit_cap_rate",
        KINDS,
        "0 to 1",
        "Share of hypotheses that were cut at the longest allowed length (`evaluation.max_new_tokens`).",
        has_rows=False,
    ),
    Metric(
        "loss",
        KINDS,
        "nats per target token",
        "Cross-entropy of the references. Computed if `evaluation.loss` is true. Lower is better.",
        can_choose=True,
        lower_is_better=True,
        has_rows=False,
    ),
)
"""Every score that an evaluation may have. The first that can choose is the task's `best_metric` by default."""

RANGES: Mapping[str, tuple[float, float]] = {"0 to 1": (0.0, 1.0), "0 to 100": (0.0, 100.0)}
"""The least and the largest value of scores in a unit; those in any other are 0 or more."""
WANTED = tuple(dict.fromkeys(metric.wanted_as for metric in METRICS if metric.wanted_as is not None))
"""Items that `evaluation.metrics` may have, beside those of the user's own."""
_LOWER_IS_BETTER = frozenset(metric.name for metric in METRICS if metric.lower_is_better)


def wanted_metrics(kind: str, *, wanted: Sequence[str] | None) -> tuple[Metric, ...]:
    """The scores of the table that an evaluation has, for a task and its `evaluation.metrics`; those of parses come always."""
    if wanted is None:
        return tuple(metric for metric in METRICS if kind in metric.tasks)
    always = [metric for metric in METRICS if kind in metric.tasks and (metric.wanted_as is None or kind == "parsing")]
    asked = [metric for item in wanted for metric in METRICS if metric.wanted_as == item]
    found = dict.fromkeys([*always, *asked] if kind == "parsing" else [*asked, *always])
    return tuple(sorted(found, key=lambda metric: metric.name == "loss"))  # which decides last


def own_code(wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The items of `evaluation.metrics` that are functions of the user's own."""
    return tuple(item for item in wanted or () if is_own_code(item))


def own_metrics(wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the scores of the user's own functions in `evaluation.metrics`."""
    return tuple(own_name(item) for item in own_code(wanted))


def choosing_metrics(kind: str, *, wanted: Sequence[str] | None = None, sets: Sequence[str] = ()) -> tuple[str, ...]:
    """Values of `evaluation.best_metric` for a task, its default first, and those of the named evaluation sets last."""
    *names, loss = [metric.name for metric in wanted_metrics(kind, wanted=wanted) if metric.can_choose]
    names += own_metrics(wanted)
    return (*names, loss, *(set_metric(each, name) for each in sets for name in names))


def set_metric(name: str, metric: str) -> str:
    """The name of a metric over the rows of one evaluation set."""
    return f"{name}/{metric}"


def is_of_set(metric: str) -> bool:
    """Whether a score is that of one evaluation set rather than of all rows."""
    return "/" in metric


def is_lower_better(metric: str) -> bool:
    """Whether the lower of two values of a score is the better one. Of the user's own metrics the higher one is."""
    return metric.rpartition("/")[2] in _LOWER_IS_BETTER


def interval_ends(metric: str, *, value: float, half: float) -> tuple[float, float]:
    """The ends of a score's interval of which half the width is known: never what the score cannot be.

    Where a score can be anything, as one of the user's own or of another program, the ends are as far below as above.
    """
    unit = next((known.unit for known in METRICS if known.name == metric.rpartition("/")[2]), None)
    least, most = (-math.inf, math.inf) if unit is None else RANGES.get(unit, (0.0, math.inf))
    # a score may pass a limit by a rounding error, and what is not finite stays so
    return min(max(value - half, least), value), max(min(value + half, most), value)


def has_rows(metric: str) -> bool:
    """Whether a score may have an interval; one of the user's own has if its function returns a number for each row."""
    name = metric.rpartition("/")[2]
    return next((known.has_rows for known in METRICS if known.name == name), True)


def rank_metrics(kind: str, *, best: str, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """The metrics by which evaluations are ranked: `best`, and those that break ties in the order of the table, the loss last."""
    of_set = choosing_metrics(kind, wanted=wanted, sets=[best.partition("/")[0]]) if is_of_set(best) else ()
    *others, loss = [
        metric.name for metric in wanted_metrics(kind, wanted=wanted) if metric.can_choose or metric.breaks_ties
    ]
    return tuple(dict.fromkeys((best, *filter(is_of_set, of_set), *others, *own_metrics(wanted), loss)))
