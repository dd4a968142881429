"""`dstrain export`: the model of a checkpoint as a Hugging Face folder."""

import os
from pathlib import Path
from typing import Annotated

import typer

from dstrain.cli.common import RunArgument, clean_errors
from dstrain.cluster.console import say
from dstrain.config.load import load_config
from dstrain.errors import UserError
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import check_folder


def export(
    run: RunArgument,
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    step: Annotated[
        int | None, typer.Option("--step", help="Step of the checkpoint; default is the newest valid one.")
    ] = None,
) -> None:
    """Write the model of a checkpoint as a Hugging Face folder, to use it or to train on from it."""
    with clean_errors():
        check_folder(run)
        source = RunFolder(run)
        if not source.config.is_file():
            raise UserError(f"{run} is not a run folder: it holds no config.yaml")
        # the export is made in FOLDER.tmp, and an older folder is set aside as FOLDER.old
        for taken in (folder, folder.with_name(f"{folder.name}.tmp"), folder.with_name(f"{folder.name}.old")):
            if os.path.lexists(taken):
                raise UserError(f"{taken} exists already: give another folder, or remove it")
        from dstrain.run.export import export_checkpoint  # imports torch: only where there is something to write

        directory = export_checkpoint(source, step=step, to=folder)
        model = load_config(str(source.config)).model
        unset = "".join(f" model.{key}=null" for key in ("scratch", "revision") if getattr(model, key) is not None)
        say(f"{folder}: the model of {directory}\nto train on from it: model.name={folder}{unset}")
