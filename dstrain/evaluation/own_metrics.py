"""Metrics of the user's own: functions that the recipe names by module and name, such as `my_package.my_module:score`.

A function is called with hypotheses, references (a list for each row) and sources, and returns a number, or one for each row.
"""

import hashlib
import importlib
import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from dstrain.errors import UserError
from dstrain.evaluation.metrics import Score

OwnMetric = Callable[[list[str], list[list[str]], list[str]], Any]


class MetricFailed(UserError):
    """A metric of the user's own raised an error, or did not return numbers."""


@cache
def load_metric(item: str) -> OwnMetric:
    """The function of an item of `evaluation.metrics`, from the environment or the current folder.

    Raises:
        UserError: there is no such function, or its module cannot be imported.
    """
    module_name, _, name = item.partition(":")
    here = os.getcwd()
    if here not in sys.path:  # a launcher's program has its own folder there instead
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a stranger's module does when it is imported
        raise UserError(
            f"evaluation.metrics `{item}`: the module `{module_name}` cannot be imported ({type(error).__name__}: {error}): "
            f"install it, or start from the folder that holds it; this is {here}"
        ) from error
    function: OwnMetric | None = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"evaluation.metrics `{item}`: `{module_name}` has no function `{name}`: correct the name")
    return function


def own_score(
    item: str, hypotheses: Sequence[str], references: Sequence[Sequence[str]], *, sources: Sequence[str]
) -> Score:
    """The score of a metric of the user's own, with its distribution and version, or a hash of its file.

    Raises:
        MetricFailed: names the metric and its error.
    """
    function = load_metric(item)
    try:
        found = function(list(hypotheses), [list(texts) for texts in references], list(sources))
        value = _read(found, num_rows=len(hypotheses))
    except Exception as error:
        raise MetricFailed(
            f"evaluation.metrics `{item}` failed on {len(hypotheses):,} rows: {type(error).__name__}: {error}"
        ) from error
    return Score(item.partition(":")[2], value, _signature(item))


def _read(found: Any, *, num_rows: int) -> float:
    if not isinstance(found, str) and hasattr(found, "__len__"):
        if len(found) != num_rows:
            raise ValueError(
                f"it returned {len(found):,} numbers for {num_rows:,} rows: return one for each, or one in all"
            )
        found = math.fsum(map(float, found)) / num_rows
    value = float(found)
    if not math.isfinite(value):
        raise ValueError(f"it returned {value}: a score must be finite")
    return value


@cache
def _signature(item: str) -> str:
    module_name = item.partition(":")[0]
    owners = metadata.packages_distributions().get(module_name.partition(".")[0])
    if owners:
        return f"{item}|{owners[0]}:{metadata.version(owners[0])}"
    file = getattr(sys.modules[module_name], "__file__", None)
    return f"{item}|sha256:{hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]}" if file else item
