"""`dstrain scripts`: the scripts that start and submit runs, for where there is no clone."""

import os
from pathlib import Path
from typing import Annotated

import typer

from dstrain.cli.common import clean_errors
from dstrain.cluster.console import say
from dstrain.config.shipped import SCRIPTS, script_folders
from dstrain.errors import UserError
from dstrain.run_folder.atomic import create_file


def scripts(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Where to; the current folder is the default.")
    ] = Path(),
) -> None:
    """Copy launch/ and slurm/ to a folder, in which the commands of the documentation then work as in a clone."""
    with clean_errors():
        copies = {folder / source.parent.name / source.name: source for source in _sources()}
        changed = [
            path for path, source in copies.items() if os.path.lexists(path) and not _is_copy(path, source=source)
        ]
        if changed:
            raise UserError(f"{changed[0]} exists already and is another file: name another folder, or remove it")
        for path, source in copies.items():
            if not os.path.lexists(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                create_file(path, source.read_bytes())
                path.chmod(source.stat().st_mode & 0o777)
        for name in SCRIPTS:
            say(f"{folder / name}: {', '.join(path.name for path in copies if path.parent.name == name)}")


def _sources() -> list[Path]:
    return sorted(path for folder in script_folders() for path in folder.iterdir() if path.is_file())


def _is_copy(path: Path, *, source: Path) -> bool:
    return path.is_file() and path.read_bytes() == source.read_bytes()
