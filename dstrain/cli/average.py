"""`dstrain average`: the mean of the weights of several checkpoints, scored and exported."""

from pathlib import Path
from typing import Annotated

import typer

from dstrain.cli.common import RunArgument, clean_errors
from dstrain.cli.export import check_free
from dstrain.cluster.console import quiet_deepspeed, say
from dstrain.cluster.environment import read_process_info
from dstrain.errors import UserError
from dstrain.reporting.average import is_average_better
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.find import find_run
from dstrain.run_folder.ownership import refuse_linked_folders
from dstrain.run_folder.reading import check_tokenizer
from dstrain.run_folder.record import load_record


def average(
    run: RunArgument,
    last: Annotated[int | None, typer.Option("--last", metavar="N", min=1, help="The newest N checkpoints.")] = None,
    best: Annotated[
        int | None, typer.Option("--best", metavar="N", min=1, help="Those of the N best evaluations.")
    ] = None,
    steps: Annotated[str | None, typer.Option("--steps", metavar="A,B,…", help="Those of these steps.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder to make; default is average/ in the run folder.")
    ] = None,
) -> None:
    """Score the mean of several checkpoints' weights, and write it as a Hugging Face folder."""
    with clean_errors():
        wanted = _read_steps(steps) if steps is not None else None
        if [last, best, wanted].count(None) != 2:
            raise UserError("which checkpoints? give one of --last N, --best N and --steps A,B,…")
        folder = find_run(run)
        config = read_run_config(folder)
        refuse_linked_folders(folder)
        check_tokenizer(folder)
        if output is not None:
            check_free(output)
        quiet_deepspeed()
        from dstrain.run.average import average_run, choose_best, choose_last  # imports torch, which takes seconds
        from dstrain.run.finish import refresh_finished_run
        from dstrain.run.scoring import join_scorers

        if wanted is None:
            wanted = choose_last(folder, number=last) if last is not None else choose_best(folder, number=best or 1)
        ranks = join_scorers(read_process_info({}), machine=config.machine, rendezvous=None)
        target = folder.average.path if output is None else output
        scores = average_run(folder, steps=wanted, output=target, ranks=ranks)
        for name, value in scores.scores.items():
            say(f"{name:<26} {value:.4f}")
        say(f"{target}: the mean of the weights at the steps {', '.join(map(str, sorted(set(wanted))))}")
        if output is None:
            refresh_finished_run(folder, machine=config.machine)
            better = is_average_better(load_record(run))
            if better is not None:
                say(f"by {config.best_metric} it is {'better' if better else 'not better'} than the best evaluation")


def _read_steps(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--steps {text}: write steps with commas between them, such as --steps 800,900,1000")
    return [int(part) for part in parts]
