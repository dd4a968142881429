"""Sections inside the sections of the recipe half. Reads no files."""

from typing import Annotated

from pydantic import Field

from dstrain.config.section import PositiveInt, Section


class EarlyStopping(Section):
    """Stop when the recipe's metric (`evaluation.best_metric`) no longer improves."""

    patience: PositiveInt
    """Evaluations without improvement after which the run ends. While the metric is 0, a better value of the metrics that break
    ties counts as an improvement."""
    min_delta: Annotated[float, Field(ge=0.0, le=1e9)] = 0.0
    """Smallest change that counts as an improvement, in the metric's own unit."""
