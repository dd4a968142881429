"""Loads what a recipe names of the user's own code, from the environment or from the folder in which the user starts."""

import hashlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from dstrain.config.own_code import own_name
from dstrain.errors import UserError

IMPORTING = ("<frozen importlib", importlib.__file__)
"""How the files of Python's own import begin."""


def load_code(item: str, *, key: str) -> Callable[..., Any]:
    """The class or function that `item` names as `my_package.my_module:name`; `key` of the recipe names it.

    Raises:
        UserError: there is none of this name, or its module cannot be imported.
    """
    module_name, name = item.partition(":")[0], own_name(item)
    here = os.getcwd()
    if here not in sys.path:  # a launcher's program has its own folder there instead
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever a stranger's module does when it is imported
        place = _innermost(error, among=lambda file: file != __file__ and not file.startswith(IMPORTING))
        raise UserError(
            f"{key} `{item}`: the module `{module_name}` cannot be imported ({describe_error(error)}{place}): "
            f"install it, or start from the folder that holds it; this is {here}"
        ) from error
    found: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(found):
        raise UserError(f"{key} `{item}`: `{module_name}` has no function or class `{name}`: correct the name")
    return found


def describe_error(error: BaseException) -> str:
    """The class of an error and what it says."""
    return f"{type(error).__name__}: {error}"


def find_place(error: BaseException, *, item: str, function: Any) -> str:
    """`, at FILE:LINE`, where loaded code was when it raised an error; where it was not entered, where `function` begins.

    Empty if its file is not known.
    """
    file = code_file(item)
    if file is None:
        return ""
    is_package = "." in item.partition(":")[0] or file.name == "__init__.py"
    top = sys.modules[item.partition(":")[0].partition(".")[0]]
    folders = tuple(f"{folder}{os.sep}" for folder in getattr(top, "__path__", ())) if is_package else ()
    return _innermost(error, among=lambda each: each == str(file) or each.startswith(folders)) or place_of(function)


def place_of(function: Any) -> str:
    """`, at FILE:LINE`, where a function of loaded code begins; empty if that is not known."""
    written = getattr(inspect.unwrap(function), "__code__", None)
    return "" if written is None else _place(written.co_filename, written.co_firstlineno)


def _innermost(error: BaseException, *, among: Callable[[str], bool]) -> str:
    """The place of the innermost frame in one of these files."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if among(each.filename)]
    return _place(frames[-1].filename, frames[-1].lineno) if frames else ""


def _place(file: str, line: int | None) -> str:
    path = Path(file)
    return f", at {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{line}"


def code_file(item: str) -> Path | None:
    """The file of the module of loaded code; None if it has none."""
    file = getattr(sys.modules[item.partition(":")[0]], "__file__", None)
    return None if file is None else Path(file)


def code_signature(item: str) -> str:
    """The item of loaded code with the distribution and version of its module, or with a hash of its file."""
    owners = metadata.packages_distributions().get(item.partition(":")[0].partition(".")[0])
    if owners:
        return f"{item}|{owners[0]}:{metadata.version(owners[0])}"
    return f"{item}|sha256:{file_hash(item)[:16]}" if file_hash(item) else item


@cache
def file_hash(item: str) -> str:
    """SHA-256 of the file of loaded code, as it is now; empty if it has none."""
    file = code_file(item)
    return "" if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
