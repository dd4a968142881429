"""What a recipe says for its model card alone. Nothing here changes what is learned or how it is computed."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from dstrain.config.licenses import OTHER, License
from dstrain.config.names import HubName, KeyName, LicenseName, LicenseText, PublishedName, Tag
from dstrain.config.section import MOST, ConflictError, PositiveInt, Section

MAX_STEPS = 1000
"""Most rows of a published table: a card of another trainer has some dozens."""

MAX_TAGS, MAX_TEXT = 50, 10_000
"""Most tags, and most characters of a text, on a card."""

Score = Annotated[float, Field(ge=-MOST, le=MOST)]


class PublishedStep(Section):
    """One row of a published table of results."""

    step: PositiveInt
    """Optimizer step of the evaluation."""
    epoch: Annotated[float, Field(ge=0.0, le=1e9)] | None = None
    """Passes over the training rows until then."""
    scores: dict[KeyName, Score] = Field(default_factory=dict)
    """The scores by their names here and in their units here (see [Metrics](#metrics)), such as `{loss: 0.76, bleu: 12.7}`."""


class Published(Section):
    """Results of another run that this one repeats. The card compares them with its own, step by step."""

    name: PublishedName = "published"
    """What the other model is called."""
    scores: dict[KeyName, Score] = Field(default_factory=dict)
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
    """What the model card says besides what the run records. All of it may change when a run is resumed."""

    license: License | None = None
    """Licence of the model, by its identifier on the Hub, such as `apache-2.0`. `other` needs `license_name`. Null: the card says
    that none is stated."""
    license_name: LicenseName | None = None
    """Name of the licence, with `license: other` only."""
    license_link: LicenseText | None = None
    """Its text, with `license: other` only: an address, or `LICENSE` for a file in the model folder."""
    base_model: HubName | None = None
    """The model that this one was made from, by its name on the Hub; leave it out for one that is not there. Null is
    `model.name` where that is such a name; a local folder is never named."""
    tags: Annotated[tuple[Tag, ...], Field(max_length=MAX_TAGS, strict=False)] = ()
    """Words by which the Hub finds the model, beside those that dstrain gives."""
    intended_use: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)] | None = None
    """What the model is meant for and what not, in paragraphs with an empty line between them. Null: the card says that it is not
    stated."""
    published: Published | None = None
    """Results of another run to compare with."""

    @model_validator(mode="after")
    def _keys_fit(self) -> "Card":
        if self.license == OTHER and self.license_name is None:
            raise ConflictError((("license_name", "license"), f"is required with license `{OTHER}`: name the licence"))
        for key in ("license_name", "license_link"):
            if self.license != OTHER and getattr(self, key) is not None:
                raise ConflictError(
                    ((key, "license"), f"goes with license `{OTHER}` only: remove it, or set license to `{OTHER}`")
                )
        if len({*self.tags}) < len(self.tags):
            raise ConflictError((("tags",), "each tag must come once"))
        return self
