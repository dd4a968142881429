"""The score of a single row, from the numbers that an evaluation kept of it. Pure.

A metric that is a mean over the rows has its number. BLEU, chrF and TER of one row are those that sacreBLEU computes of one
sentence, from the same counts.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from dstrain.config.schema import RunConfig

WIDTHS: Mapping[str, int] = {"bleu": 10, "chrf": 18, "ter": 2}
"""Numbers of a row in the scores that are no mean over rows."""
_ORDERS_OF_BLEU = 4
_BETA = 2.0


def choose_metric(config: RunConfig, *, known: Collection[str]) -> str | None:
    """The metric by which single rows are shown, of those `known`: the recipe's own, but chrF rather than BLEU.

    BLEU says little of one sentence. None if no metric of the recipe has numbers of rows.
    """
    wanted = dict.fromkeys((config.best_metric.rpartition("/")[2], *config.choosing, *sorted(known)))
    found = [metric for metric in wanted if metric in known and "/" not in metric]
    if found[:1] == ["bleu"] and "chrf" in found:
        return "chrf"
    return found[0] if found else None


def row_score(metric: str, numbers: Sequence[float]) -> float | None:
    """The score of a row; None if the numbers are not those of the metric."""
    if len(numbers) != WIDTHS.get(metric, 1):
        return None
    return round(_SCORES.get(metric, _only)(numbers), 4)


def _only(numbers: Sequence[float]) -> float:
    return numbers[0]


def _chrf(numbers: Sequence[float]) -> float:
    """chrF2 of a sentence, 0 to 100: the F score of the mean precision and recall over the orders that both sides have."""
    precisions, recalls = [], []
    for hypothesis, reference, matches in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True):
        if hypothesis > 0 and reference > 0:
            precisions.append(matches / hypothesis)
            recalls.append(matches / reference)
    if not precisions:
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    weight = _BETA**2
    total = weight * precision + recall
    return 100.0 * (1.0 + weight) * precision * recall / total if total > 0 else 0.0


def _bleu(numbers: Sequence[float]) -> float:
    """BLEU of a sentence, 0 to 100: over the orders that it has, smoothed as sacreBLEU does by default."""
    length, reference_length = numbers[:2]
    matches, totals = numbers[2 : 2 + _ORDERS_OF_BLEU], numbers[2 + _ORDERS_OF_BLEU :]
    if not any(matches):
        return 0.0
    logs, smoothing = [], 1.0
    for matched, total in zip(matches, totals, strict=True):
        if total <= 0:
            break
        if matched <= 0:
            smoothing *= 2.0
        logs.append(math.log(100.0 * matched / total if matched > 0 else 100.0 / (smoothing * total)))
    penalty = min(0.0, 1.0 - reference_length / length) if length > 0 else -math.inf
    return math.exp(sum(logs) / len(logs) + penalty) if logs else 0.0


def _ter(numbers: Sequence[float]) -> float:
    """TER of a sentence, in edits per 100 words of the reference."""
    edits, length = numbers
    return 100.0 * edits / length if length > 0 else 100.0 * float(edits > 0)


_SCORES: Mapping[str, Callable[[Sequence[float]], float]] = {"bleu": _bleu, "chrf": _chrf, "ter": _ter}
