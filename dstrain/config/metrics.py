"""The scores of an evaluation, as a table: name, tasks, unit and meaning. Computes none of them."""

from collections.abc import Sequence
from dataclasses import dataclass

BOTH = ("translation", "parsing")


@dataclass(frozen=True, slots=True)
class Metric:
    """A score under the name that it has in metrics.jsonl, in score files and on the card."""

    name: str
    tasks: tuple[str, ...]
    """Values of `task.kind` for which it is computed."""
    unit: str
    meaning: str
    can_choose: bool = False
    """Whether `evaluation.best_metric` may name it."""
    breaks_ties: bool = False
    """Whether it decides between evaluations with the same `best_metric`, as every metric does that can choose."""


METRICS = (
    Metric("bleu", ("translation",), "0 to 100", "Corpus BLEU by sacreBLEU, with its signature.", can_choose=True),
    Metric("chrf", ("translation",), "0 to 100", "Corpus chrF by sacreBLEU, with its signature.", can_choose=True),
    Metric(
        "exact_match",
        ("parsing",),
        "0 to 1",
        "Share of rows whose decoded hypothesis equals the decoded reference, white space restored on both sides. In the "
        "plain form the quoted strings of the reference are those in the data, white space included.",
        can_choose=True,
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
        BOTH,
        "tokens",
        "Mean length of the hypotheses. Every token but padding counts, as in the Hugging Face examples: the end, language and "
        "start tokens too. So a hypothesis that was cut at 12 tokens counts 13 where the start token is `</s>` (M2M100, NLLB, "
        "mBART), 12 where it is padding (Marian, T5, mT5), and fewer if padding was generated.",
    ),
    Metric(
        "hit_cap_rate",
        BOTH,
        "0 to 1",
        "Share of hypotheses that were cut at the longest allowed length (`evaluation.max_new_tokens`).",
    ),
    Metric(
        "loss",
        BOTH,
        "nats per target token",
        "Cross-entropy of the references. Computed if `evaluation.loss` is true. Lower is better.",
        can_choose=True,
    ),
)
"""Every score that an evaluation may have. The first that can choose is the task's `best_metric` by default."""


def choosing_metrics(kind: str, *, sets: Sequence[str] = ()) -> tuple[str, ...]:
    """Values of `evaluation.best_metric` for a task, its default first, and those of the named evaluation sets last."""
    names = [metric.name for metric in METRICS if metric.can_choose and kind in metric.tasks]
    return (*names, *(set_metric(each, name) for each in sets for name in names if name != "loss"))


def set_metric(name: str, metric: str) -> str:
    """The name of a metric over the rows of one evaluation set."""
    return f"{name}/{metric}"


def is_of_set(metric: str) -> bool:
    """Whether a score is that of one evaluation set rather than of all rows."""
    return "/" in metric


def rank_metrics(kind: str, *, best: str) -> tuple[str, ...]:
    """The metrics by which evaluations are ranked: `best`, and those that break ties in the order of the table, the loss last."""
    others = [metric.name for metric in METRICS if kind in metric.tasks and (metric.can_choose or metric.breaks_ties)]
    of_set = choosing_metrics(kind, sets=[best.partition("/")[0]]) if is_of_set(best) else ()
    return tuple(dict.fromkeys((best, *filter(is_of_set, of_set), *others)))
