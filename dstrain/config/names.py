"""Names in a recipe: which texts they may be, and what an error says is wanted, in words and not as a pattern."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from dstrain.config.paths import MAX_RUN_NAME


def written_as(pattern: str, *, wanted: str) -> AfterValidator:
    """Text that a regular expression matches as a whole; the error says that it must be what is `wanted`."""
    form = re.compile(pattern)

    def check(text: str) -> str:
        if not form.fullmatch(text):
            raise PydanticCustomError("written_otherwise", "must be {wanted}", {"wanted": wanted})
        return text

    return AfterValidator(check)


def made_of(others: str) -> AfterValidator:
    """A name of ASCII letters, digits and `others`, of which none begins it."""
    *first, last = (f"`{other}`" if other.strip() else "spaces" for other in others)
    wanted = f"made of the letters a to z and A to Z, digits, {', '.join(first)} and {last}, and begin with a letter or digit"
    return written_as(rf"[A-Za-z0-9][A-Za-z0-9{re.escape(others)}]*", wanted=wanted)


FileName = Annotated[str, Field(max_length=MAX_RUN_NAME), made_of("._-")]
"""The name of a run or of a set of rows, after which files and folders are called."""
TaskName = Annotated[str, Field(max_length=MAX_RUN_NAME), made_of(" ._-")]
PublishedName = Annotated[str, Field(max_length=MAX_RUN_NAME), made_of(" ./_-")]
LicenseName = Annotated[str, Field(max_length=MAX_RUN_NAME), made_of(" ._+-")]
Tag = Annotated[str, Field(max_length=60), made_of(" ._+-")]
KeyName = Annotated[
    str,
    Field(max_length=40),
    written_as(r"[a-z][a-z0-9_]*", wanted="made of the letters a to z, digits and `_`, and begin with a letter"),
]
"""A key that the user chooses, and the name of a score."""
HubName = Annotated[
    str,
    Field(max_length=MAX_RUN_NAME),
    written_as(
        r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?",
        wanted="a hub name such as google/mt5-small",
    ),
]
"""`owner/name`, or the one name of an old model; no path can be one that begins with `/`, `.` or `~`, or has two folders."""
LicenseText = Annotated[
    str,
    Field(max_length=2000),
    written_as(
        r"https://[^\s<>]+|LICENSE(\.md|\.txt)?",
        wanted="an address that begins with https://, or LICENSE, LICENSE.md or LICENSE.txt for a file in the model folder",
    ),
]
