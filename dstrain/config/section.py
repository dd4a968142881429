"""What every section of the configuration is made of: the strict base class, number types, and the error for conflicts."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(ge=0.0, lt=1.0)]

Conflict = tuple[tuple[str, ...], str]
"""The dotted keys involved, first the one at which the conflict is reported, and the message."""


class Section(BaseModel):
    """A part of the configuration: immutable, every key known, no silent type conversion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class ConflictError(ValueError):
    """Settings that exclude each other; the keys are relative to the section that raises."""

    def __init__(self, *conflicts: Conflict) -> None:
        self.conflicts = conflicts
        super().__init__("; ".join(message for _, message in conflicts))
