"""`dstrain verify`: which checkpoints of a run are valid."""

from pathlib import Path
from typing import Annotated

import typer

from dstrain.checkpoint.verify import inspect_checkpoint, inspect_run, is_checkpoint, is_sound
from dstrain.cli.common import clean_errors
from dstrain.cli.completion import complete_run
from dstrain.cluster.console import say
from dstrain.cluster.exit_codes import EXIT_FAILED
from dstrain.errors import UserError
from dstrain.run_folder.reading import check_folder
from dstrain.status.checkpoints import checkpoints_table


def verify(
    run: Annotated[
        Path,
        typer.Argument(help="A run folder, its checkpoints folder, or one checkpoint.", autocompletion=complete_run),
    ],
) -> None:
    """Read checkpoints in full and say which are valid; exit code 0 if the run can resume and none is broken, else 1."""
    with clean_errors():
        check_folder(run)
        if is_checkpoint(run):
            status = inspect_checkpoint(run)
            say(checkpoints_table([status]))
            raise typer.Exit(0 if status.is_valid else EXIT_FAILED)
        statuses = inspect_run(run)
        if not statuses:
            raise UserError(f"{run} holds no checkpoints")
        say(checkpoints_table(statuses))
        if not any(status.is_next for status in statuses):
            say(f"{run}: there is no checkpoint to resume from", err=True)
        raise typer.Exit(0 if is_sound(statuses) else EXIT_FAILED)
