"""Values from the files of a run folder; errors name the file and the line."""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dstrain.errors import UserError
from dstrain.run_folder.layout import EXPORTED_STEP


class RunFolderError(UserError):
    """A folder that is not a run folder, or a file in it that is damaged."""


def check_folder(run_dir: Path) -> None:
    """Raise RunFolderError where a run folder that a user named does not exist."""
    if not run_dir.is_dir():
        raise RunFolderError(f"{run_dir}: no such folder; give the run folder that `output_dir` names")


def parse_json(line: bytes, *, where: str) -> Any:
    """The value of a line; raises RunFolderError that names `where`."""
    try:
        return json.loads(line)
    except ValueError as error:
        raise RunFolderError(f"{where}: not JSON ({error}); found {line[:80]!r}; correct or remove the line") from error


def validate(adapter: TypeAdapter[Any], *, value: Any, where: str) -> Any:
    """`value` as the adapter's type; raises RunFolderError that names every fault and `where`."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault['msg']}" for fault in error.errors())
        raise RunFolderError(f"{where}: {faults}") from error


def read_exported_step(folder: Path) -> int | None:
    """The step whose weights a model folder holds; None if the folder does not exist or does not name it."""
    try:
        return int(json.loads((folder / EXPORTED_STEP).read_bytes())["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
