"""What srun, torchrun and python start to score models. Finds out what is asked before torch is imported.

python -m dstrain.evaluate RUN                          the best model again, into <run>/evaluate
python -m dstrain.evaluate RUN --pending                    the evaluations that the run left to another job
python -m dstrain.evaluate RUN --step N --as NAME 'data.eval=[{path: other.tsv}]'    another test set
python -m dstrain.evaluate MODEL --config RECIPE        any model folder or hub name
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dstrain.checkpoint.store import parse_checkpoint_name
from dstrain.cluster.console import quiet_libraries
from dstrain.cluster.environment import read_process_info
from dstrain.cluster.exit_codes import EXIT_FAILED, EXIT_USAGE
from dstrain.cluster.rendezvous import needs_rendezvous, open_rendezvous
from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run_folder.scores import folder_of_set

EXPORTS = ("best", "final")
EFFECTIVE_KEYS = (
    "task",
    "data.eval",
    "data.rules",
    "precision",
    *(
        f"evaluation.{key}"
        for key in ("batch_size", "num_beams", "length_penalty", "max_new_tokens", "loss", "max_rows")
    ),
    *(f"machine.{key}" for key in ("evaluation_tokens", "cache_dir", "lease_seconds", "collective_timeout_minutes")),
)
"""What a scoring goes by; another key of a recipe changes nothing here."""


@dataclass(frozen=True)
class Order:
    """What is to be scored."""

    config: RunConfig
    model: str
    """A model folder or hub name; the folder of a run where `step` names its checkpoint."""
    step: int | None
    output: Path
    """Where scores and hypotheses are written."""
    is_pending: bool
    """Score what the run in `output` left to another job, rather than one model."""
    joins: Path | None
    """The run whose card tells of these scores, as of another test set."""
    ignored: tuple[str, ...]
    """Overrides that have no effect on scores."""


def main(argv: Sequence[str] | None = None, *, program: str = "launch/evaluate.py") -> int:
    """Score as one rank among others; gives the exit code: 0 scored, 1 failed, 2 a wrong command."""
    options = parse_arguments(sys.argv[1:] if argv is None else argv, program=program)
    try:
        process = read_process_info(os.environ)
        order = plan_order(options)
        rendezvous = None
        if needs_rendezvous(process):
            rendezvous = open_rendezvous(process, environment=os.environ, run_dir=order.output)
    except (UserError, OSError) as error:
        if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
            print(error, file=sys.stderr)
        return EXIT_USAGE
    quiet_libraries(process)
    if order.ignored and process.rank == 0:
        keys = ", ".join(EFFECTIVE_KEYS)
        print(f"no effect here: {', '.join(order.ignored)} (what has: {keys})", file=sys.stderr)
    # imports torch for seconds: only for an order that can be carried out
    from dstrain.run.scoring import join_scorers, score_model, score_pending

    try:
        ranks = join_scorers(process, config=order.config, rendezvous=rendezvous)
        if order.is_pending:
            score_pending(order.output, config=order.config, ranks=ranks)
        else:
            score_model(
                order.model,
                step=order.step,
                config=order.config,
                output=order.output,
                joins=order.joins,
                ranks=ranks,
            )
        ranks.leave()
    except (UserError, OSError) as error:
        print(error if process.rank == 0 else f"rank {process.rank}: {error}", file=sys.stderr, flush=True)
        if process.world_size > 1:
            # the interpreter's own ending would wait for peers in destructors of the process group
            os._exit(EXIT_FAILED)
        return EXIT_FAILED
    return 0


def parse_arguments(arguments: Sequence[str], *, program: str) -> argparse.Namespace:
    """What is asked; anything else ends the process with a usage message and code 2."""
    parser = argparse.ArgumentParser(prog=program, description="Score a model on the evaluation rows of a recipe.")
    parser.add_argument("model", help="a run folder (its best model is taken), a model folder or a hub name")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="data.eval=… evaluation.num_beams=5 …")
    parser.add_argument("--config", help="the recipe; a run folder has its own")
    parser.add_argument("--step", type=int, help="score the checkpoint of this step of a run")
    parser.add_argument("--as", dest="name", help="name of another test set: its scores join the run's card, by step")
    parser.add_argument("--pending", action="store_true", help="score what the run left to another job")
    parser.add_argument("--output", type=Path, help="where scores and hypotheses are written")
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)  # given by deepspeed
    return parser.parse_intermixed_args(arguments)


def plan_order(options: argparse.Namespace) -> Order:
    """What the arguments ask for.

    Raises:
        UserError: it cannot be done; the message says what and how.
    """
    run_dir = Path(options.model) if (Path(options.model) / "config.yaml").is_file() else None
    if run_dir is None:
        _refuse_no_model(options.model)
    if run_dir is None and (asked := [name for name in ("step", "name", "pending") if getattr(options, name)]):
        flag = {"name": "--as"}.get(asked[0], f"--{asked[0]}")
        raise UserError(f"{flag} needs a run folder, and {options.model} is none: it holds no config.yaml")
    if options.config is None and run_dir is None:
        raise UserError(f"{options.model} is no run folder with a config.yaml: say which recipe with --config")
    if options.pending and (options.step or options.name or options.output or options.config):
        raise UserError("--pending scores a run's own evaluations: leave --step, --as, --output and --config away")
    if options.name and options.output:
        raise UserError("--as keeps the scores in the run folder: leave --output away, or --as")
    recipe = options.config or str(Path(options.model) / "config.yaml")
    config = load_config(recipe, overrides=options.overrides, check_files=True, trains=False)
    if options.pending and (changed := [text for text in options.overrides if not text.startswith("machine.")]):
        raise UserError(
            f"--pending scores what the run's own recipe says: `{changed[0]}` would change that; leave it away"
        )
    changes = [text for text in options.overrides if _is_of(text, keys=EFFECTIVE_KEYS)]
    if options.name and options.config is None and all(text.startswith("machine.") for text in changes):
        raise UserError(
            f"--as {options.name} would be the run's own evaluation rows under another name: give the rows of the test set, "
            "'data.eval=[{path: other.tsv}]', or leave --as away"
        )
    model = options.model if run_dir is None or options.pending else _model_of(run_dir, step=options.step)
    return Order(
        config,
        model,
        step=options.step,
        output=_output(options, run_dir=run_dir, config=config),
        is_pending=options.pending,
        joins=run_dir if options.name else None,
        ignored=tuple(text for text in options.overrides if text not in changes),
    )


def _is_of(override: str, *, keys: Sequence[str]) -> bool:
    """Whether `a.b=value` sets one of `keys`, a part of one, or what one is a part of."""
    path = override.split("=", 1)[0] + "."
    return any(path.startswith(f"{key}.") or f"{key}.".startswith(path) for key in keys)


def _refuse_no_model(name: str) -> None:
    """Before the hub is asked, which takes long to answer that it has no such name."""
    folder = Path(name)
    if (step := parse_checkpoint_name(folder)) is not None and folder.is_dir():
        raise UserError(f"{name} is a checkpoint: dstrain evaluate {folder.parents[1]} --step {step.step}")
    is_path = name.startswith(("/", ".", "~")) or name.count("/") > 1
    if not folder.exists() and (is_path or (folder.parent.is_dir() and folder.parent != Path())):
        raise UserError(
            f"{name}: no such folder; give a run folder, a model folder, or owner/name of a model on the hub"
        )


def _model_of(run_dir: Path, *, step: int | None) -> str:
    if step is not None:
        return str(run_dir)
    for name in EXPORTS:
        if (run_dir / name).is_dir():
            return str(run_dir / name)
    raise UserError(
        f"{run_dir} holds no model yet, neither best/ nor final/: score one of its checkpoints with --step (dstrain verify "
        f"{run_dir} lists them)"
    )


def _output(options: argparse.Namespace, *, run_dir: Path | None, config: RunConfig) -> Path:
    if run_dir is None:
        return options.output or Path("evaluate") / config.name
    if options.name:
        return folder_of_set(run_dir, name=options.name)
    return run_dir if options.pending else options.output or run_dir / "evaluate"


if __name__ == "__main__":
    sys.exit(main())
