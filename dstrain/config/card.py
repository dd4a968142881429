"""What a recipe says for its model card alone. Nothing here changes what is learned or how it is computed."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from dstrain.config.paths import MAX_RUN_NAME
from dstrain.config.section import MOST, ConflictError, PositiveInt, Section

MAX_STEPS = 1000
"""Most rows of a published table: a card of another trainer has some dozens."""

ScoreName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Score = Annotated[float, Field(ge=-MOST, le=MOST)]


class PublishedStep(Section):
    """One row of a published table of results."""

    step: PositiveInt
    """Optimizer step of the evaluation."""
    epoch: Annotated[float, Field(ge=0.0, le=1e9)] | None = None
    """Passes over the training rows until then."""
    scores: dict[ScoreName, Score] = Field(default_factory=dict)
    """The scores by their names here and in their units here (see [Metrics](#metrics)), such as `{loss: 0.76, bleu: 12.7}`."""


class Published(Section):
    """Results of another run that this one repeats. The card compares them with its own, step by step."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ./_-]*$", max_length=MAX_RUN_NAME)] = "published"
    """What the other model is called."""
    scores: dict[ScoreName, Score] = Field(default_factory=dict)
    """The scores that its card opens with."""
    steps: Annotated[tuple[PublishedStep, ...], Field(max_length=MAX_STEPS, strict=False)] = ()
    """Its table of results. `dstrain recipe from-card` writes it."""

    @model_validator(mode="after")
    def _each_step_once(self) -> "Published":
        steps = [row.step for row in self.steps]
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ConflictError((("steps",), "each step must come once, in rising order"))
        return self


class Card(Section):
    """What the model card says besides what the run records."""

    published: Published | None = None
    """Results of another run to compare with."""
