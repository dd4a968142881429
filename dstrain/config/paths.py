"""Which texts can be the path of a file or folder, before the operating system is asked. Pure."""

import os
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

MAX_NAME_BYTES = 255
"""Longest name of a file or folder, on every common file system of Linux."""
MAX_PATH_BYTES = 4095
MAX_RUN_NAME = 200
"""Longest name of a run: a folder is called so, also with suffixes such as `-overfit16` or `.tmp`."""
BASE = "base"
"""Sub-folder of a run folder with the model of `model.from_run`."""


def path_problem(path: str | os.PathLike[str]) -> str | None:
    """Why there can be no file or folder at this path, whatever the disk holds; None if there can."""
    text = os.fspath(path)
    longest = max(len(os.fsencode(part)) for part in text.split("/"))
    if not text.strip():
        return "is empty"
    if "\0" in text:
        return "has the character U+0000, which no path has"
    if longest > MAX_NAME_BYTES:
        return f"has a name of {longest:,} bytes, and a file or folder may have {MAX_NAME_BYTES}"
    if len(os.fsencode(text)) > MAX_PATH_BYTES:
        return f"has {len(os.fsencode(text)):,} bytes, and a path may have {MAX_PATH_BYTES:,}"
    return None


def _check(path: str) -> str:
    if problem := path_problem(path):
        raise PydanticCustomError("path_problem", "{problem}", {"problem": problem})
    return path


LocalPath = Annotated[str, AfterValidator(_check)]
"""A path in a recipe."""
