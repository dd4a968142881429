"""`dstrain verify`: which checkpoints of a run are valid."""

from pathlib import Path
from typing import Annotated

import typer

from dstrain.checkpoint.verify import inspect_checkpoint, inspect_run, is_checkpoint, is_sound
from dstrain.cli.common import clean_errors
from dstrain.cluster.exit_codes import EXIT_FAILED
from dstrain.errors import UserError
from dstrain.status.checkpoints import checkpoints_table


def verify(
    run: Annotated[
        Path,
        typer.Argument(exists=True, file_okay=False, help="A run folder, its checkpoints folder, or one checkpoint."),
    ],
) -> None:
    """Read checkpoints in full and say which are valid; exit code 0 if the run can resume and none is broken, else 1."""
    with clean_errors():
        if is_checkpoint(run):
            verdict = inspect_checkpoint(run)
            typer.echo(checkpoints_table([verdict]))
            raise typer.Exit(0 if verdict.is_whole else EXIT_FAILED)
        verdicts = inspect_run(run)
        if not verdicts:
            raise UserError(f"{run} holds no checkpoints")
        typer.echo(checkpoints_table(verdicts))
        if not any(verdict.is_next for verdict in verdicts):
            typer.echo(f"{run}: there is no checkpoint to resume from", err=True)
        raise typer.Exit(0 if is_sound(verdicts) else EXIT_FAILED)
