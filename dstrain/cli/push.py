"""`dstrain push`: a model of a run to the Hugging Face Hub."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from dstrain.checkpoint.store import find_checkpoint
from dstrain.cli.common import RunArgument, clean_errors
from dstrain.cluster.console import quiet_deepspeed, say
from dstrain.errors import UserError
from dstrain.run_folder.layout import AVERAGE, BEST, FINAL, RunFolder
from dstrain.run_folder.reading import check_tokenizer
from dstrain.run_folder.record import load_record


def push(
    run: RunArgument,
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The name of the model on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Only its owner sees it. Public is the default.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all, say what would go up, send nothing.")] = False,
    show_card: Annotated[
        bool, typer.Option("--show-card", help="As --dry-run, and print the card that would go up.")
    ] = False,
    best: Annotated[bool, typer.Option("--best", help="The best model, which is the default.")] = False,
    final: Annotated[bool, typer.Option("--final", help="The last model.")] = False,
    average: Annotated[bool, typer.Option("--average", help="The average of checkpoints.")] = False,
    step: Annotated[int | None, typer.Option("--step", help="The model of the checkpoint of this step.")] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="BRANCH", help="A branch, made if it does not exist.")
    ] = None,
) -> None:
    """Send a model folder with its card to the Hugging Face Hub, in one commit. It is public unless --private is given.

    The token is that of HF_TOKEN or of `hf auth login`. A push that broke off is repeated by the same command.
    """
    with clean_errors():
        chosen = [name for name, wanted in ((BEST, best), (FINAL, final), (AVERAGE, average)) if wanted]
        if len(chosen) + (step is not None) > 1:
            raise UserError("which model? give one of --best, --final, --average and --step")
        from dstrain.sharing.push import check_names  # imports matplotlib, which the other commands do not need

        check_names(repo, branch=revision)
        send = partial(_push, run, repo=repo, branch=revision, private=private, dry_run=dry_run, show_card=show_card)
        if step is None:
            send(model=chosen[0] if chosen else None)
            return
        if not (dry_run or show_card):
            from dstrain.sharing.hub import check_access

            check_access()  # before the export, which takes its time
        with TemporaryDirectory() as folder:
            exported = Path(folder) / f"step-{step}"
            _export(run, step=step, to=exported)
            send(exported=exported)


def _push(
    run: Path,
    *,
    repo: str,
    branch: str | None,
    private: bool,
    dry_run: bool,
    show_card: bool,
    model: str | None = None,
    exported: Path | None = None,
) -> None:
    from huggingface_hub import constants

    from dstrain.sharing.hub import check_access, send
    from dstrain.sharing.push import describe_push, plan_push

    planned = plan_push(run, repo=repo, branch=branch, private=private, model=model, exported=exported)
    if not (dry_run or show_card):
        check_access()
    for line in describe_push(planned, endpoint=constants.ENDPOINT):
        say(line, err=show_card)  # the card alone is on standard output, for a file or a pager
    if show_card:
        say(planned.card)
        say("nothing was sent: --show-card", err=True)
    elif dry_run:
        say("nothing was sent: --dry-run; --show-card prints the card that would go up")
    else:
        say(send(planned, report=say))


def _export(run: Path, *, step: int, to: Path) -> None:
    """Write the model of a checkpoint of a finished run to a new folder."""
    if load_record(run).status != "finished":
        raise UserError(
            f"{run} has not finished, and of such a run only the best model so far is sent: leave out --step"
        )
    check_tokenizer(RunFolder(run))
    directory = find_checkpoint(run, step=step)
    quiet_deepspeed()
    from dstrain.run.export import export_checkpoint  # imports torch, which takes seconds

    export_checkpoint(RunFolder(run), directory=directory, to=to, check=True)
