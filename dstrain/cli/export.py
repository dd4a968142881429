"""`dstrain export`: the model of a checkpoint as a Hugging Face folder, or converted for another engine."""

import os
from pathlib import Path
from typing import Annotated

import typer

from dstrain.checkpoint.store import find_checkpoint
from dstrain.cli.common import RunArgument, clean_errors
from dstrain.cli.completion import complete_choice
from dstrain.cluster.console import quiet_deepspeed, say
from dstrain.config.arguments import shell_command, weights_overrides
from dstrain.config.paths import path_problem
from dstrain.config.yaml_source import shown
from dstrain.errors import UserError
from dstrain.run_folder.atomic import write_problem
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.converted import QUANTIZATIONS
from dstrain.run_folder.find import find_run
from dstrain.run_folder.layout import CONVERTED
from dstrain.run_folder.reading import check_tokenizer

Engine = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="ENGINE",
        help=f"Convert the model for this engine: `{CONVERTED}`.",
        autocompletion=complete_choice(lambda: [CONVERTED]),
    ),
]
Quantization = Annotated[
    str | None,
    typer.Option(
        "--quantization",
        metavar="TYPE",
        help=f"With --to: {', '.join(QUANTIZATIONS)}.",
        autocompletion=complete_choice(lambda: QUANTIZATIONS),
    ),
]


def export(
    run: RunArgument,
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    step: Annotated[
        int | None, typer.Option("--step", help="Step of the checkpoint; default is the newest valid one.")
    ] = None,
    trim: Annotated[
        bool,
        typer.Option(
            "--trim", help="Only the tokens that the run trained, with a small tokenizer. For model.vocabulary `seen`."
        ),
    ] = False,
    to: Engine = None,
    quantization: Quantization = None,
) -> None:
    """Write the model of a checkpoint as a Hugging Face folder, to use it or to train on from it."""
    with clean_errors():
        _check_engine(to, quantization=quantization, trim=trim)
        source = find_run(run)
        check_free(folder)
        check_tokenizer(source)
        config = read_run_config(source)
        if trim and config.model.vocabulary != "seen":
            raise UserError(
                "--trim is for runs with model.vocabulary `seen`; this one trained the whole vocabulary: export without it"
            )
        directory = find_checkpoint(source.path, step=step)
        # imports torch, which takes seconds: only where there is something to write
        quiet_deepspeed()
        if to is not None:
            from dstrain.run.convert import export_converted

            say(export_converted(source, directory=directory, to=folder, quantization=quantization))
            # a folder starts no code of its user's own: only a recipe names it
            recipe = ["--config", source.config] if config.task.own else []
            command = shell_command(["dstrain", "predict", folder, *recipe])
            say(f"{folder}: the model of {directory}\nto use it: {command}")
            return
        if trim:
            from dstrain.run.trim import export_trimmed

            say(export_trimmed(source, directory=directory, to=folder))
        else:
            from dstrain.run.export import export_checkpoint

            export_checkpoint(source, directory=directory, to=folder, check=True)
        overrides = weights_overrides(folder, model=config.model.model_dump())
        say(f"{folder}: the model of {directory}\nto train on from it: {shell_command(overrides)}")


def _check_engine(engine: str | None, *, quantization: str | None, trim: bool) -> None:
    """Refuse options that name nothing known, or that do not go together."""
    if engine is None:
        if quantization is not None:
            raise UserError(f"--quantization {shown(quantization)} needs an engine that has it: give --to {CONVERTED}")
        return
    if engine != CONVERTED:
        raise UserError(f"--to must be {CONVERTED}; found {shown(engine)}")
    if quantization is not None and quantization not in QUANTIZATIONS:
        raise UserError(f"--quantization must be one of {', '.join(QUANTIZATIONS)}; found {shown(quantization)}")
    if trim:
        raise UserError(f"--trim and --to {CONVERTED} do not go together: leave out one of them")


def check_free(folder: Path) -> None:
    """Refuse a folder that exists; so must those not in which it is made, and to which an older one is moved."""
    if os.path.lexists(folder):
        raise UserError(f"{folder} exists already: give another folder, or remove it")
    for used in (folder.with_name(f"{folder.name}.tmp"), folder.with_name(f"{folder.name}.old")):
        if problem := path_problem(used):
            raise UserError(f"the folder to make, with {used.suffix}, {problem}; found {shown(str(folder))}")
        if os.path.lexists(used):
            raise UserError(f"{used} exists already: give another folder, or remove it")
    if problem := write_problem(folder):
        raise UserError(f"{folder} cannot be made: {problem}: give another folder")
