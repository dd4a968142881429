"""The command line: train, check, status, compare, sweep and more. Reads and prints; imports torch only to compute."""

import json
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

import dstrain
from dstrain.checkpoint.verify import inspect_checkpoint, inspect_run, is_checkpoint, is_sound
from dstrain.cluster.processes import this_process
from dstrain.config.load import ConfigError, load_config
from dstrain.config.summary import summary
from dstrain.drill.drill import run_drill
from dstrain.drill.launch import count_gpus
from dstrain.drill.scenarios import MIN_STEPS, plan_scenarios
from dstrain.errors import UserError
from dstrain.reporting import comparison
from dstrain.reporting.terminal import aligned
from dstrain.run_folder.record import load_record
from dstrain.status import text
from dstrain.status.checkpoints import _table
from dstrain.status.inspect import inspect_status
from dstrain.sweep.members import (
    SIZE,
    Member,
    check_members,
    find_change,
    plan_members,
    read_sweep,
    write_indices,
    write_submit,
)
from dstrain.sweep.text import _member_row

app = typer.Typer(
    help="Distributed training of sequence-to-sequence models: one recipe, any machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

EXIT_USAGE, EXIT_INTERRUPTED = 2, 130
AT_WORK = ("running", "finished")

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="training.learning_rate=1e-4 …")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An override, like the arguments.")]


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Distributed training of sequence-to-sequence models: one recipe, any machine."""
    if version:
        typer.echo(f"dstrain {dstrain.__version__}")
        raise typer.Exit


@app.command()
def check(
    arguments: Annotated[list[str], typer.Argument(metavar="CONFIG... [KEY=VALUE]...", help="Files or recipe names.")],
    settings: Set = None,
) -> None:
    """Report everything that is wrong with configurations, each with file and line, without importing torch."""
    configs = [argument for argument in arguments if not _is_override(argument)]
    overrides = [argument for argument in arguments if _is_override(argument)] + (settings or [])
    if not configs:
        raise typer.BadParameter("name at least one configuration", param_hint="CONFIG")
    failed = False
    for name in configs:
        try:
            config = load_config(name, overrides=overrides, check_files=True)
        except ConfigError as error:
            typer.echo(str(error), err=True)
            failed = True
        else:
            typer.echo(f"{name}: ok\n{summary(config)}")
    raise typer.Exit(1 if failed else 0)


@app.command()
def train(
    config: Annotated[str, typer.Option("--config", help="A recipe file, or the name of a shipped recipe.")],
    overrides: Overrides = None,
    debug: Annotated[bool, typer.Option("--debug", help="One process, a few rows, deterministic.")] = False,
    overfit: Annotated[int | None, typer.Option("--overfit", help="Debug: learn this many rows by heart.")] = None,
    allow_changed: Annotated[
        list[str] | None, typer.Option("--allow-changed", metavar="FIELD", help="Go on although this has changed.")
    ] = None,
) -> None:
    """Train in this process; start several ranks with `deepspeed --module dstrain.train --config …` instead."""
    from dstrain.train import main as train_main

    argv = ["--config", config, *(overrides or [])]
    argv += ["--debug"] if debug else []
    argv += ["--overfit", str(overfit)] if overfit is not None else []
    argv += [argument for field in allow_changed or [] for argument in ("--allow-changed", field)]
    raise typer.Exit(train_main(argv))


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A run folder (its best model is taken), a model folder or a hub name.")],
    overrides: Overrides = None,
    config: Annotated[str | None, typer.Option("--config", help="The recipe; a run folder has its own.")] = None,
    step: Annotated[int | None, typer.Option("--step", help="The checkpoint of this step of a run.")] = None,
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Another test set: its scores join the run's card.")
    ] = None,
    pending: Annotated[bool, typer.Option("--pending", help="What the run left to another job.")] = False,
    output: Annotated[Path | None, typer.Option("--output", help="Where the scores are written.")] = None,
) -> None:
    """Score a model in this process; several start with `torchrun … launch/evaluate.py` or slurm/evaluate.sbatch."""
    from dstrain.evaluate import main as evaluate_main

    given = {"--config": config, "--step": step, "--as": name, "--output": output}
    argv = [model, *(overrides or []), *(["--pending"] if pending else [])]
    argv += [f"{flag}={value}" for flag, value in given.items() if value is not None]
    raise typer.Exit(evaluate_main(argv, program="dstrain evaluate"))


@app.command()
def card(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Write the model card of a run again from the run's files."""
    with _clean_errors():
        from dstrain.reporting.card import write_card  # imports matplotlib, which the other commands do not need

        typer.echo(write_card(run))


@app.command()
def status(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    quiet_seconds: Annotated[
        float | None, typer.Option("--quiet-seconds", min=0.0, help="Silent after so long; by default as the phase.")
    ] = None,
) -> None:
    """Say what a run is doing, here or on another node; exit code 0 if it runs or has finished, else 1."""
    found = inspect_status(run, now=time.time(), observer=this_process(), quiet_seconds=quiet_seconds)
    typer.echo(json.dumps(text.as_json(found), indent=1) if as_json else text.describe_status(found))
    raise typer.Exit(0 if found.state in AT_WORK else 1)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="For a page.")] = False,
) -> None:
    """Show runs side by side, the best first, with the recipe keys in which they differ; exit code 1 if one is no run."""
    found: list[comparison.Compared] = []
    for run in runs:
        try:
            record = load_record(run)
        except (UserError, OSError, RecursionError) as error:
            typer.echo(f"{run} is skipped: {error}", err=True)
        else:
            state = inspect_status(run, now=time.time(), observer=this_process()).state
            found.append(comparison.describe_run(record, run=str(run), state=state))
    show = comparison.markdown_table if as_markdown else comparison.text_table
    if as_json:
        typer.echo(json.dumps(comparison.as_json(found), indent=1))
    elif found:
        typer.echo(show(found))
    raise typer.Exit(0 if len(found) == len(runs) else 1)


@app.command()
def sweep(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A sweep file: a recipe, and a grid or a list of overrides.")
    ],
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Check every member of a sweep, and say how to submit them as a job array and how to compare them."""
    with _clean_errors():
        planned = read_sweep(file, typed=overrides or ())
        members = plan_members(planned)
        configs = check_members(planned, members)
        changes = {member.number: find_change(config) for member, config in zip(members, configs, strict=True)}
        found = [(member, *_state_of_member(member)) for member in members]
    waiting = {member.number: job for member, _, job in found if job is not None}
    # those that run or have finished need no job, those that Slurm starts again have one
    changed = [number for number, change in changes.items() if change]
    to_submit = [
        member.number for member, state, job in found if not (state in AT_WORK or job or member.number in changed)
    ]
    submit = write_submit(file, to_submit, typed=overrides or ()) if to_submit else None
    show = f"dstrain compare {shlex.quote(planned.output_dir.rstrip('/'))}/*"
    if as_json:
        rows = [
            {"number": member.number, "overrides": member.overrides, "run_dir": member.run_dir}
            | {"state": state, "comes_again": job, "changed": changes[member.number]}
            for member, state, job in found
        ]
        typer.echo(json.dumps({"members": rows, "submit": submit, "compare": show}, indent=1))
        return
    typer.echo(aligned([("member", "overrides", "run folder", "status"), *(_member_row(*each) for each in found)]))
    typer.echo(
        f"\nsubmit   {submit or 'nothing: every member runs, has finished, is started again by Slurm or has changed'}"
    )
    if submit:
        typer.echo(f"size     of one member: {shlex.join(SIZE)} above; without GPUs --ntasks-per-node=1")
    if changed:
        first = next(text for text in changes.values() if text)
        typer.echo(
            f"changed  member {write_indices(changed)}: the run in its folder learned otherwise ({first}): give the sweep "
            "another output_dir, or remove that folder"
        )
    if waiting:
        again = write_submit(file, waiting, typed=overrides or ())
        typer.echo(f"waiting  squeue --jobs {','.join(waiting.values())}; for members it does not list: {again}")
    typer.echo(f"compare  {show}")


@app.command()
def verify(
    run: Annotated[
        Path,
        typer.Argument(exists=True, file_okay=False, help="A run folder, its checkpoints folder, or one checkpoint."),
    ],
) -> None:
    """Read checkpoints in full and say which are whole; exit code 0 if the run can go on and none is broken, else 1."""
    with _clean_errors():
        if is_checkpoint(run):
            verdict = inspect_checkpoint(run)
            typer.echo(_table([verdict]))
            raise typer.Exit(0 if verdict.is_whole else 1)
        verdicts = inspect_run(run)
        if not verdicts:
            raise UserError(f"{run} holds no checkpoints")
        typer.echo(_table(verdicts))
        if not any(verdict.is_next for verdict in verdicts):
            typer.echo(f"{run}: there is no checkpoint to go on from", err=True)
        raise typer.Exit(0 if is_sound(verdicts) else 1)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A run folder.")],
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    step: Annotated[int | None, typer.Option("--step", help="Which checkpoint; the newest that is whole.")] = None,
) -> None:
    """Write the model of a checkpoint as a Hugging Face folder, to use it or to train on from it."""
    with _clean_errors():
        if not (run / "config.yaml").is_file():
            raise UserError(f"{run} is no run folder: it holds no config.yaml")
        # the two beside it are where a folder is made and set aside
        for taken in (folder, folder.with_name(f"{folder.name}.tmp"), folder.with_name(f"{folder.name}.old")):
            if os.path.lexists(taken):
                raise UserError(f"{taken} exists already: give another folder, or remove it")
        from dstrain.run.export import export_checkpoint  # imports torch: only where there is something to write

        directory = export_checkpoint(run, step=step, folder=folder)
        model = load_config(str(run / "config.yaml")).model
        unset = "".join(f" model.{key}=null" for key in ("scratch", "revision") if getattr(model, key) is not None)
        typer.echo(f"{folder}: the model of {directory}\nto train on from it: model.name={folder}{unset}")


@app.command()
def drill(
    config: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    overrides: Overrides = None,
    ranks: Annotated[
        int | None, typer.Option("--ranks", min=1, help="Processes on this machine; one a GPU, or one.")
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=MIN_STEPS, help="Optimizer steps of each run.")] = 12,
    output: Annotated[Path | None, typer.Option("--output", help="The drill's folder; <run folder>-drill.")] = None,
    launch_minutes: Annotated[
        float, typer.Option("--launch-minutes", help="Time limit of one start of the ranks; a longer one fails.")
    ] = 30.0,
    scenarios: Annotated[str, typer.Option("--scenarios", hidden=True, help="step,manifest: these alone.")] = "",
) -> None:
    """Kill a short run of a recipe at chosen moments on this machine, and prove that nothing is lost: exit code 0 if so."""
    try:
        loaded = load_config(config, overrides=overrides or (), check_files=True)
        nothing_lost = run_drill(
            loaded,
            scenarios=plan_scenarios(
                num_ranks=ranks or max(1, count_gpus(os.environ)),
                steps=steps,
                has_rehearsal=loaded.evaluation.rehearsal,
                only=[name for name in scenarios.split(",") if name],
            ),
            steps=steps,
            folder=output or Path(f"{loaded.run_dir.rstrip('/')}-drill"),
            launch_minutes=launch_minutes,
            environment=os.environ,
            say=typer.echo,
        )
    except UserError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_USAGE) from error
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    raise typer.Exit(0 if nothing_lost else 1)


def _state_of_member(member: Member) -> tuple[str | None, str | None]:
    """As `dstrain status` calls it, None before its run has begun; and the job that Slurm is to start again."""
    run = Path(member.run_dir)
    if not run.is_dir():
        return None, None
    found = inspect_status(run, now=time.time(), observer=this_process())
    return found.state, found.comes_again


def _is_override(argument: str) -> bool:
    return "=" in argument and not Path(argument).exists()


@contextmanager
def _clean_errors() -> Iterator[None]:
    """A user's mistake ends in its message and exit code 1, without a traceback."""
    try:
        yield
    except (UserError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
