"""Metrics of the user's own: functions that the recipe names by module and name, such as `my_package.my_module:score`.

A function is called with hypotheses, references (a list for each row) and sources, and returns a number, or one for each row.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from dstrain.config.own_code import own_name
from dstrain.errors import UserError
from dstrain.evaluation.metrics import Score
from dstrain.tasks.own_code import code_signature, load_code

OwnMetric = Callable[[list[str], list[list[str]], list[str]], Any]


class MetricFailed(UserError):
    """A metric of the user's own raised an error, or did not return numbers."""


def load_metric(item: str) -> OwnMetric:
    """The function of an item of `evaluation.metrics`. Raises UserError if it cannot be loaded."""
    return load_code(item, key="evaluation.metrics")


def own_score(
    item: str, hypotheses: Sequence[str], references: Sequence[Sequence[str]], *, sources: Sequence[str]
) -> Score:
    """The score of a metric of the user's own, with its distribution and version, or a hash of its file.

    It has row statistics, and so an interval, if the function returns a number for each row.

    Raises:
        MetricFailed: names the metric and its error.
    """
    function = load_metric(item)
    try:
        found = function(list(hypotheses), [list(texts) for texts in references], list(sources))
        value, rows = _read(found, num_rows=len(hypotheses))
    except Exception as error:
        raise MetricFailed(
            f"evaluation.metrics `{item}` failed on {len(hypotheses):,} rows: {type(error).__name__}: {error}"
        ) from error
    return Score(own_name(item), value, code_signature(item), rows)


def _read(found: Any, *, num_rows: int) -> tuple[float, list[tuple[float]] | None]:
    """The score, and the numbers of the rows where the function returns them."""
    rows = None
    if not isinstance(found, str) and hasattr(found, "__len__"):
        if len(found) != num_rows:
            raise ValueError(
                f"it returned {len(found):,} numbers for {num_rows:,} rows: return one for each, or one in all"
            )
        rows = [(float(number),) for number in found]
        found = math.fsum(number for (number,) in rows) / num_rows
    value = float(found)
    if not math.isfinite(value):
        raise ValueError(f"it returned {value}: a score must be finite")
    return value, rows
