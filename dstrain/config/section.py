"""What every section of the configuration is made of: the strict base class, number types, and the error for conflicts."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MOST = 1_000_000_000
"""The largest count of anything: more is a slip, and would overflow or exhaust memory long after the recipe was read."""
YEAR_MINUTES = 366 * 24 * 60.0
Count = Annotated[int, Field(ge=0, le=MOST)]
PositiveInt = Annotated[int, Field(ge=1, le=MOST)]
Minutes = Annotated[float, Field(ge=0.0, le=YEAR_MINUTES)]
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
