"""Metrics of the user's own: functions that the recipe names by module and name, such as `my_package.my_module:score`.

A function is called with hypotheses, references (a list for each row) and sources. It returns a number, or one for each row, or
None where these rows have nothing to measure.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from dstrain.config.own_code import own_name
from dstrain.errors import UserError
from dstrain.evaluation.metrics import Score
from dstrain.tasks.own_code import code_signature, describe_error, find_place, load_code

OwnMetric = Callable[[list[str], list[list[str]], list[str]], Any]


class MetricFailed(UserError):
    """A metric of the user's own raised an error, or did not return numbers."""


def load_metric(item: str) -> OwnMetric:
    """The function of an item of `evaluation.metrics`. Raises UserError if it cannot be loaded."""
    return load_code(item, key="evaluation.metrics")


def own_score(
    item: str,
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    sources: Sequence[str],
    places: Sequence[str],
) -> Score:
    """The score of a metric of the user's own, with its distribution and version, or a hash of its file.

    It has row statistics, and so an interval, if the function returns a number for each row; the value is NaN if it returns
    None. `places` are those of the rows in the data.

    Raises:
        MetricFailed: names the metric, its error, and where in the user's code or in the data it arose.
    """
    function = load_metric(item)
    try:
        found = function(list(hypotheses), [list(texts) for texts in references], list(sources))
        value, rows = _read(found, places=places)
    except Exception as error:
        span = f" ({places[0]} to {places[-1]})" if places else ""
        raise MetricFailed(
            f"evaluation.metrics `{item}` failed on {len(hypotheses):,} rows{span}: {describe_error(error)}"
            f"{find_place(error, item=item, function=function)}: correct it, or leave it out of evaluation.metrics"
        ) from error
    return Score(own_name(item), value, code_signature(item), rows)


def _read(found: Any, *, places: Sequence[str]) -> tuple[float, list[tuple[float]] | None]:
    """The score, and the numbers of the rows where the function returns them."""
    rows, num_rows = None, len(places)
    if found is None:
        return math.nan, None
    if not isinstance(found, str) and hasattr(found, "__len__"):
        if len(found) != num_rows:
            raise ValueError(
                f"it returned {len(found):,} numbers for {num_rows:,} rows: return one for each, or one in all"
            )
        rows = [(_row_number(number, row=row, places=places),) for row, number in enumerate(found)]
        found = math.fsum(number for (number,) in rows) / num_rows
    value = float(found)
    if not math.isfinite(value):
        raise ValueError(f"it returned {value}: a score must be finite, or None where there is nothing to measure")
    return value, rows


def _row_number(found: Any, *, row: int, places: Sequence[str]) -> float:
    try:
        number = float(found)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"it returned {found!r} for row {row} ({places[row]}): the number of a row must be finite")
    return number
