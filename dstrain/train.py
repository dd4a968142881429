"""What deepspeed, torchrun, srun and python start. Checks the configuration before torch or a model class is imported.

Without a clone: `deepspeed --module dstrain.train --config NAME_OR_FILE [key=value ...]`.
"""

import argparse
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dstrain.attempt.failure import report_failure
from dstrain.cluster.environment import EXIT_INTERRUPTED, EXIT_PREEMPTED, Place, discover_place
from dstrain.cluster.launcher import find_launcher
from dstrain.cluster.phases import read_drill
from dstrain.cluster.rendezvous import Meeting, arrange_meeting, needs_meeting
from dstrain.cluster.requeue import CAUSE_VARIABLE, read_start
from dstrain.cluster.walltime import read_allocation_end
from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from dstrain.console import prepare_output
from dstrain.debug import shrink_config
from dstrain.errors import UserError

EXIT_USAGE = 2

log = logging.getLogger("dstrain")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one rank of a training run; gives the exit code: 0 finished, 85 saved and to be started again, else failed."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = parse_arguments(arguments)
    try:
        place = discover_place(os.environ)
        place = replace(place, launched_by=find_launcher(place.launcher))
        drill = read_drill(os.environ)
        allocation_end = read_allocation_end(os.environ)
        config = load_config(options.config, overrides=options.overrides, check_files=True)
        if options.debug or options.overfit:
            config = shrink_config(config, overfit=options.overfit, world_size=place.world_size)
        make_run_dir(config)
        meeting = _arrange_meeting(place, config=config)
    except UserError as error:
        if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
            print(f"{error}", file=sys.stderr)
        return EXIT_USAGE
    prepare_output(place)
    _await_signals()
    command = show_command(place, script=sys.argv[0], arguments=arguments)
    try:
        from dstrain.run import run  # imports torch and DeepSpeed for seconds: only for a configuration that can run

        return run(
            config,
            place=place,
            command=command,
            allowed=options.allow_changed,
            drill=drill,
            debug=bool(options.debug or options.overfit),
            meeting=meeting,
            cause=os.environ.get(CAUSE_VARIABLE),
            allocation_end=allocation_end,
        )
    except Exception as error:
        # the interpreter's own ending would wait for peers in destructors of the process group
        _, restart = read_start(os.environ)
        os._exit(report_failure(error, config=config, place=place, is_restart=restart > 0))


def make_run_dir(config: RunConfig) -> Path:
    """The run folder, made if need be; raises UserError where it cannot be."""
    run_dir = Path(config.run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"output_dir: the run folder {run_dir} cannot be made ({error.strerror}); override output_dir=…"
        ) from error
    return run_dir


def _arrange_meeting(place: Place, *, config: RunConfig) -> Meeting | None:
    if not needs_meeting(place):
        return None
    return arrange_meeting(place, environment=os.environ, run_dir=Path(config.run_dir))


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """What a training is started with; anything else ends the process with a usage message and code 2."""
    parser = argparse.ArgumentParser(prog="train.py", description="Train a sequence-to-sequence model from a recipe.")
    parser.add_argument("--config", required=True, help="a recipe file, or the name of a shipped recipe")
    parser.add_argument(
        "--debug", action="store_true", help="one process, a few rows, deterministic, anomaly detection"
    )
    parser.add_argument(
        "--overfit", type=_row_count, metavar="N", help="debug: learn N rows by heart, to prove the model can"
    )
    parser.add_argument(
        "--allow-changed",
        action="append",
        default=[],
        metavar="FIELD",
        help="go on from the checkpoint although this field has changed (training.learning_rate, data.train, …)",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)  # given by deepspeed
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="training.learning_rate=1e-4 ...")
    return parser.parse_intermixed_args(arguments)


def _row_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"is a number of rows, 1 or more; found {text!r}")
    return int(text)


def _await_signals() -> None:
    # until training begins nothing can be saved, and nothing is lost: to be started again is all there is to say
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: os._exit(EXIT_PREEMPTED))
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(EXIT_INTERRUPTED))


def show_command(place: Place, *, script: str, arguments: Sequence[str]) -> str:
    """The command that starts this run again on as many ranks, as one would type it."""
    launcher = {
        "deepspeed": ["deepspeed", "--num_gpus", str(place.local_world_size)],
        "torchrun": ["torchrun", "--nproc-per-node", str(place.local_world_size)],
        "srun": ["srun", "--ntasks", str(place.world_size), "python"],
    }.get(place.launcher, ["python"])
    module = "--module" if place.launcher in ("deepspeed", "torchrun") else "-m"
    program = ["launch/train.py"] if Path(script).parts[-2:] == ("launch", "train.py") else [module, "dstrain.train"]
    given = [argument for argument in arguments if not argument.startswith(("--local_rank", "--local-rank"))]
    return shlex.join([*launcher, *program, *given])


if __name__ == "__main__":
    sys.exit(main())
