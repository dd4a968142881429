"""Which of two evaluations is better, and which metrics do not tell evaluations apart. Pure."""

import math
from collections.abc import Mapping, Sequence

from dstrain.config.metrics import is_lower_better
from dstrain.config.schema import RunConfig

NUM_CONSTANT = 3
"""A metric with the same value in as many evaluations in a row is warned about."""


def rank(scores: Mapping[str, float], *, metrics: Sequence[str]) -> tuple[float, ...]:
    """Greater for better scores: by the first of `metrics`, among equals by the next, and so on.

    The loss and TER are better where they are lower. A score that is absent or not a number is worse than any other.
    """
    return tuple(_value(scores.get(metric, math.nan), metric=metric) for metric in metrics)


def describe_constants(evaluations: Sequence[Mapping[str, float]], *, config: RunConfig) -> dict[str, str]:
    """A sentence for each metric that may choose the best model and has not changed over NUM_CONSTANT evaluations."""
    metrics = dict.fromkeys((config.best_metric, *config.choosing))
    values = {metric: _find_constant([each.get(metric) for each in evaluations]) for metric in metrics}
    return {metric: _describe(metric, value, config=config) for metric, value in values.items() if value is not None}


def _value(score: float, *, metric: str) -> float:
    if math.isnan(score):
        return -math.inf
    return -score if is_lower_better(metric) else score


def _find_constant(values: Sequence[float | None]) -> float | None:
    """The first value that comes NUM_CONSTANT times in a row, None if there is none."""
    for start in range(len(values) - NUM_CONSTANT + 1):
        if len(set(values[start : start + NUM_CONSTANT])) == 1 and values[start] is not None:
            return values[start]
    return None


def _describe(metric: str, value: float, *, config: RunConfig) -> str:
    text = f"{metric} was {value:.4f} in {NUM_CONSTANT} evaluations in a row: it does not tell the models apart"
    if metric != config.best_metric:
        return text
    return f"{text}, so that {', '.join(config.ranking[1:])} choose the best one, in this order; read the hypotheses"
