"""Sections inside the sections of the recipe half. Reads no files."""

from typing import Annotated, Literal

from pydantic import Field

from dstrain.config.section import PositiveInt, Probability, Section


class Adapter(Section):
    """Train low-rank updates of weight matrices instead of the matrices."""

    kind: Literal["lora"] = "lora"
    """`lora` adds a product of two small matrices to each (Hu et al. 2022). It needs peft: `pip install 'dstrain[lora]'`."""
    rank: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Width of the small matrices. LoRA wants a larger learning rate than training of all weights: often 1e-4 to 1e-3."""
    alpha: Annotated[float, Field(gt=0.0, le=1e6)] = 16.0
    """The product is multiplied by `alpha` / `rank`."""
    dropout: Probability = 0.0
    """Dropout of the input of the small matrices."""
    targets: Literal["attention", "all"] | Annotated[tuple[str, ...], Field(min_length=1, strict=False)] = "attention"
    """The matrices: those of `attention`, `all` of attention and feed-forward layers, or a list of names such as
    `[q_proj, v_proj]` (T5 and mT5: `[q, v]`)."""


class EarlyStopping(Section):
    """Stop when the recipe's metric (`evaluation.best_metric`) no longer improves."""

    patience: PositiveInt
    """Evaluations without improvement after which the run ends. While the metric is 0, a better value of the metrics that break
    ties counts as an improvement."""
    min_delta: Annotated[float, Field(ge=0.0, le=1e9)] = 0.0
    """Smallest change that counts as an improvement, in the metric's own unit."""
