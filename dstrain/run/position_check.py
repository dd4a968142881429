"""Whether a model folder on this machine has positions for the limits of a recipe, before anything is loaded. No torch."""

import json
from pathlib import Path

from dstrain.config.positions import limits_beyond, read_positions
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run_folder.base import parse_from_run
from dstrain.run_folder.reading import read_bytes


def check_positions(config: RunConfig) -> None:
    """Raises UserError if a limit of the task is over the positions of a model whose config.json is here.

    A model that is not here, or whose configuration cannot be read, is left to the start of the run.
    """
    folder = _model_folder(config)
    if folder is None or not (folder / "config.json").is_file():
        return
    try:
        values = json.loads(read_bytes(folder / "config.json"))
        positions = read_positions(str(values["model_type"]), values.get)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, ArithmeticError):
        return
    for key, message in limits_beyond(config.task, positions=positions):
        raise UserError(f"{key}: {message} ({folder / 'config.json'})")


def _model_folder(config: RunConfig) -> Path | None:
    model = config.model
    if model.from_run is not None:
        return parse_from_run(model.from_run).find_model()
    return None if model.name is None else Path(model.name)
