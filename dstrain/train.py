"""The program that deepspeed, torchrun, srun and python start to train. Checks the configuration before importing torch.

Without a clone: `deepspeed --module dstrain.train --config NAME_OR_FILE [key=value ...]`.
"""

import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from dstrain.attempt.failure import report_failure
from dstrain.attempt.rank_records import read_drill
from dstrain.cluster.console import describe, hide_gpus, quiet_libraries, run_program, say, say_from_signal
from dstrain.cluster.environment import CAUSE_VARIABLE, ProcessInfo, read_process_info, read_start
from dstrain.cluster.exit_codes import EXIT_INTERRUPTED, EXIT_PREEMPTED, EXIT_USAGE
from dstrain.cluster.launcher import find_launcher
from dstrain.cluster.progress import phase
from dstrain.cluster.rendezvous import Rendezvous, needs_rendezvous, open_rendezvous
from dstrain.cluster.signals import catch_saving_signals
from dstrain.cluster.walltime import read_allocation_end
from dstrain.config.arguments import TRAINING_OPTIONS, parse_arguments, shell_command
from dstrain.config.habits import correct
from dstrain.config.secrets import mask
from dstrain.config.shrink import shrink_config
from dstrain.errors import UserError
from dstrain.run.cache import make_cache_dir
from dstrain.run.launch import Launch
from dstrain.run.recipe_check import check_needs
from dstrain.run_folder.began import load_run_config
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.ownership import make_run_folder
from dstrain.run_folder.start_mark import mark_start
from dstrain.tracking.backends import check_trackers

log = logging.getLogger("dstrain")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one rank of a training run; returns the exit code: 0 finished, 85 start it again, else failed."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        process = read_process_info(os.environ)
    except UserError as error:  # of this process alone, which may be in a pod with a log of its own
        say(error, err=True)
        return EXIT_USAGE
    program = shell_command(command_words(process, script=sys.argv[0], arguments=()))
    told = correct(arguments, program=program, options=TRAINING_OPTIONS, num_ranks=process.world_size)
    if told is not None:
        if process.local_rank == 0:
            say(told, err=True)
        return EXIT_USAGE
    options = parse_arguments(arguments)
    try:
        process = replace(process, launched_by=find_launcher(process.launcher))
        config = load_run_config(options.config, overrides=options.overrides, check_files=True)
        whole = config if options.debug or options.overfit else None
        if whole is not None:
            config = shrink_config(config, overfit=options.overfit, world_size=process.world_size)
        check_needs(config)
        check_trackers(config)
        folder = make_run_folder(config, empties=whole is not None)
        make_cache_dir(config)
        launch = Launch(
            process,
            command=command_words(process, script=sys.argv[0], arguments=arguments),
            allow_changed=tuple(options.allow_changed),
            whole=whole,
            drill=read_drill(os.environ),
            rendezvous=_open_rendezvous(process, folder=folder),
            cause=os.environ.get(CAUSE_VARIABLE),
            allocation_end=read_allocation_end(os.environ),
        )
        if process.rank == 0:
            mark_start(folder)
    except (UserError, OSError) as error:
        if process.local_rank == 0:  # each node has its log
            say(describe(error), err=True)
        return EXIT_USAGE
    quiet_libraries(process)
    if config.machine.device == "cpu":
        hide_gpus()
    _await_signals()
    try:
        log.info(
            "%s: begins on %s", folder.path, "1 rank" if process.world_size == 1 else f"{process.world_size} ranks"
        )
        # which takes seconds: only after the configuration has been checked
        with phase("importing torch, transformers and DeepSpeed"):
            from dstrain.run.training import run

        return run(config, launch=launch)
    except Exception as error:
        # a normal exit would wait for the peers in destructors of the process group
        _, restarts, launches = read_start(os.environ)
        os._exit(report_failure(error, config=config, process=process, is_restart=restarts + launches > 0))


def _open_rendezvous(process: ProcessInfo, *, folder: RunFolder) -> Rendezvous | None:
    if not needs_rendezvous(process):
        return None
    return open_rendezvous(process, environment=os.environ, folder=folder.rendezvous)


def _await_signals() -> None:
    # before training begins there is nothing to save: exit at once, with the code for a restart
    def end(number: int, frame: FrameType | None) -> None:
        say_from_signal(f"received {signal.Signals(number).name} before training began")
        os._exit(EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_PREEMPTED)

    catch_saving_signals(end)
    signal.signal(signal.SIGINT, end)


def command_words(process: ProcessInfo, *, script: str, arguments: Sequence[str]) -> tuple[str, ...]:
    """The command that starts this run again on the same number of ranks, for the card: paths shortened, secrets masked."""
    launcher = {
        "deepspeed": ["deepspeed", "--num_gpus", str(process.local_world_size)],
        "torchrun": ["torchrun", "--nproc-per-node", str(process.local_world_size)],
        "srun": ["srun", "--ntasks", str(process.world_size), "python"],
    }.get(process.launcher, ["python"])
    module = "--module" if process.launcher in ("deepspeed", "torchrun") else "-m"
    program = ["launch/train.py"] if Path(script).parts[-2:] == ("launch", "train.py") else [module, "dstrain.train"]
    given = [argument for argument in arguments if not argument.startswith(("--local_rank", "--local-rank"))]
    return tuple(mask(_shorten_paths(word)) for word in [*launcher, *program, *given])


def _shorten_paths(argument: str) -> str:
    """The argument with paths relative to the working directory, and `~` for the home: the card publishes it."""
    for folder, short, inside in ((os.getcwd(), ".", ""), (os.path.expanduser("~"), "~", "~/")):
        if folder not in ("/", "~"):
            place = rf"(?<![\w./~-]){re.escape(folder)}"  # not in the middle of a longer path or name
            argument = re.sub(rf"{place}(?![\w./-])", short, re.sub(rf"{place}/+", inside, argument))
    return argument


if __name__ == "__main__":
    run_program(main)
