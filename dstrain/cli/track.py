"""`dstrain track`: a run sent to trackers, from a login node or afterwards."""

from typing import Annotated

import typer

from dstrain.cli.common import RunArgument, clean_errors
from dstrain.cli.completion import complete_choice
from dstrain.cluster.console import describe, say
from dstrain.cluster.exit_codes import EXIT_FAILED
from dstrain.config.machine import Tracker as TrackerSettings
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.find import find_run
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.ownership import refuse_linked_folders
from dstrain.tracking.backends import BUILT_IN, make_tracker, tracker_names, wanted_trackers
from dstrain.tracking.sender import Delivery, send_run


def track(
    run: RunArgument,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="TRACKER",
            help=f"{', '.join(BUILT_IN)}, or an installed one; default: the recipe's.",
            autocompletion=complete_choice(tracker_names),
        ),
    ] = None,
    project: Annotated[str | None, typer.Option("--project", help="Project of W&B, experiment of MLflow.")] = None,
    uri: Annotated[str | None, typer.Option("--uri", help="Address of the server.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run there.")] = None,
) -> None:
    """Send the rows and scores of a run to trackers, as far as they lack them; TensorBoard's file is written again."""
    with clean_errors():
        folder = find_run(run)
        config = read_run_config(folder)
        refuse_linked_folders(folder)
        trackers = tuple(to or wanted_trackers(config))
        if not trackers:
            raise UserError(
                f"{run}: its recipe names no tracker: give one with --to, such as --to {next(iter(BUILT_IN))}"
            )
        settings = {each: _settings(config, name=each, project=project, uri=uri, run_name=name) for each in trackers}
    failed = False
    for each in trackers:
        try:
            say(f"{each}: {_describe(_send(folder, name=each, settings=settings[each]))}")
        except (UserError, OSError) as error:
            say(describe(error), err=True)
            failed = True
    raise typer.Exit(EXIT_FAILED if failed else 0)


def _settings(
    config: RunConfig, *, name: str, project: str | None, uri: str | None, run_name: str | None
) -> TrackerSettings:
    """The recipe's, with what the command gives; the server is never one that only the run folder names."""
    kept = config.logging.trackers.get(name, TrackerSettings())
    if uri is None and kept.uri is not None:
        # the tracker would show that server your credentials, and the folder may be a stranger's
        raise UserError(f"{name}: the run's recipe names the server {kept.uri}: to send it there, add --uri {kept.uri}")
    return TrackerSettings(project=project or kept.project, uri=uri, name=run_name or kept.name)


def _send(folder: RunFolder, *, name: str, settings: TrackerSettings) -> Delivery:
    make_tracker(name, folder=folder, settings=settings)  # refused before the run is read
    return send_run(
        folder,
        name=name,
        make_tracker=lambda: make_tracker(name, folder=folder, settings=settings),
        run_name=settings.name,
    )


def _describe(delivery: Delivery) -> str:
    number = f"{delivery.num_points:,} points sent" if delivery.num_points else "nothing was missing"
    shown = f"; {delivery.address}" if delivery.address else ""
    return f"{number} ({delivery.destination}){shown}"
