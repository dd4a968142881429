"""What dstrain ships beside its code: recipes, and the scripts that start and submit runs. Imports no torch.

In a clone they lie beside the package, in the wheel inside it.
"""

import os
import re
from difflib import get_close_matches
from pathlib import Path

from dstrain.config.arguments import shell_command

PACKAGE = Path(__file__).parent.parent
SCRIPTS = ("launch", "slurm")
"""Folders of scripts: those that start runs on machines at hand, and those for Slurm."""

_COMMAND = re.compile(r"# (deepspeed|python) launch/train\.py --config configs/\w+\.yaml(.*)")
_AS_MODULE = {"deepspeed": ["deepspeed", "--module"], "python": ["python", "-m"]}


def recipes_folder(*, package: Path = PACKAGE) -> Path:
    """The folder of the shipped recipes."""
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "configs"


def script_folders(*, package: Path = PACKAGE) -> list[Path]:
    """The folders SCRIPTS."""
    installed = package / "scripts"
    return [(installed if installed.is_dir() else package.parent) / name for name in SCRIPTS]


def shipped_recipes() -> list[str]:
    """The names of the shipped recipes."""
    return sorted(recipe.stem for recipe in recipes_folder().glob("*.yaml"))


def find_recipe(name: str, *, folder: Path = Path()) -> Path | None:
    """The file that `name` means, seen from a folder; None if there is none.

    A name without a folder is searched there, then among the shipped recipes, and may lack its `.yaml`.
    """
    path = folder / name
    if os.path.isfile(path):  # False as well for a name that no file can have
        return path
    if Path(name).name != name:
        return None
    file = name if name.endswith(".yaml") else f"{name}.yaml"
    return next((each for each in (folder / file, recipes_folder() / file) if os.path.isfile(each)), None)


def suggest_recipes(name: str) -> str:
    """The names of the shipped recipes, and which of them is meant by a name that is none, for a message."""
    names = shipped_recipes()
    close = get_close_matches(Path(name).stem, names, n=1)
    return f"shipped recipes: {', '.join(names) or 'none'}" + (f"; did you mean `{close[0]}`?" if close else "")


def as_own(text: str, *, file: Path) -> str:
    """The text of a shipped recipe for a copy at `file`: its first line has the command that runs the copy anywhere."""
    head, line_break, rest = text.partition("\n")
    match = _COMMAND.fullmatch(head)
    if match is None:
        return text
    command = shell_command([*_AS_MODULE[match[1]], "dstrain.train", "--config", file])
    return f"# {command}{match[2]}{line_break}{rest}"
