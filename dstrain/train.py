"""What deepspeed, torchrun, srun and python start. Checks the configuration before torch or a model class is imported.

Without a clone: `deepspeed --module dstrain.train --config NAME_OR_FILE [key=value ...]`.
"""

import argparse
import logging
import os
import shlex
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dstrain.cluster.environment import EXIT_INTERRUPTED, EXIT_PREEMPTED, Place, discover_place
from dstrain.cluster.holder import this_process
from dstrain.cluster.launcher import find_launcher
from dstrain.cluster.lease import LeaseHeld, LeaseLost
from dstrain.cluster.outcome import RunOutcome, write_bad_end
from dstrain.cluster.phases import ranks_dir, read_drill, read_rank_records
from dstrain.cluster.rendezvous import Meeting, arrange_meeting, needs_meeting
from dstrain.cluster.requeue import CAUSE_VARIABLE, read_start
from dstrain.cluster.walltime import read_allocation_end
from dstrain.config.load import ConfigError, load_config
from dstrain.config.schema import RunConfig
from dstrain.console import prepare_output
from dstrain.debug import shrink_config

EXIT_USAGE = 2
PEER_SECONDS = 5.0
"""How long a rank whose exchange broke waits for the report of the rank that broke it."""

EXPLAINED_ERRORS = ("TrainingFault", "LeaseLost")
RAISED_ON_ALL = ("TrainingFault", "LeaseHeld")
NETWORK_ERRORS = ("DistNetworkError", "DistBackendError", "DistStoreError")
"""By name, because torch is not imported yet where they are looked for."""
NETWORK_SIGNS = ("closed by peer", "Connection reset", "Broken pipe", "gloo", "NCCL")

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
    except (ConfigError, ValueError) as error:
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
        os._exit(_report_failure(error, config=config, place=place, is_restart=restart > 0))


def make_run_dir(config: RunConfig) -> Path:
    """The run folder, made if need be; raises ValueError where it cannot be."""
    run_dir = Path(config.run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
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


def _report_failure(error: Exception, *, config: RunConfig, place: Place, is_restart: bool = False) -> int:
    """Print this rank's traceback, or one line if another rank failed first and this one merely lost its peer.

    Gives the exit code: "start me again" if a peer was lost without a word, as when its node or the kernel killed it, or if a
    scheduler's restart found the folder still held: this job has run there before, and whoever holds it may soon end.
    """
    run_dir = Path(config.run_dir)
    reports = run_dir / "failures"
    if _lost_peer(error) and not _is_explained(error):
        if culprit := _first_report(reports, since=time.time() - PEER_SECONDS):
            print(f"rank {place.rank} ends because {culprit} failed", file=sys.stderr)
            return 1
        time.sleep(
            PEER_SECONDS
        )  # the watchdog knows more of ranks on this host, and ends this process with their names
        message = f"rank {place.rank} lost its connection to a rank that left no word: {error}"
        attempt = _own_attempt(run_dir, rank=place.rank)
        write_bad_end(run_dir, RunOutcome("lost", EXIT_PREEMPTED, message, attempt=attempt))
        print(message, file=sys.stderr, flush=True)
        return EXIT_PREEMPTED
    full = "".join(traceback.format_exception(error))
    if not isinstance(error, LeaseHeld | LeaseLost):  # the folder belongs to another start
        _leave_report(full, error=error, run_dir=run_dir, rank=place.rank)
    code = EXIT_PREEMPTED if isinstance(error, LeaseHeld) and is_restart else 1
    if place.rank != 0 and type(error).__name__ in RAISED_ON_ALL:
        return code  # rank 0 says the same
    text = f"error: {error}" if _is_explained(error) else full
    print(f"rank {place.rank} failed:\n{text}" if place.world_size > 1 else text, file=sys.stderr, flush=True)
    return code


def _leave_report(full: str, *, error: Exception, run_dir: Path, rank: int) -> None:
    try:
        (run_dir / "failures").mkdir(parents=True, exist_ok=True)
        (run_dir / "failures" / f"rank-{rank}.txt").write_text(full)
    except OSError as problem:
        print(f"the failure could not be written to {run_dir}: {problem.strerror}", file=sys.stderr)
    attempt = _own_attempt(run_dir, rank=rank)
    write_bad_end(run_dir, RunOutcome("failed", 1, f"rank {rank}: {error}", attempt=attempt))


def _own_attempt(run_dir: Path, *, rank: int) -> int:
    """Number of the start that this process belongs to, as its own record says; 0 before it has one, or another took it."""
    own = this_process()
    records = read_rank_records(ranks_dir(run_dir), ranks=[rank])
    ours = (own.host, own.pid_namespace, own.pid, own.process_start)
    return next(
        (each.attempt for each in records if (each.host, each.pid_namespace, each.pid, each.process_start) == ours), 0
    )


def _is_explained(error: Exception) -> bool:
    """Whether the message alone tells a user what to do: it was written here, and not raised by a library."""
    frames = traceback.extract_tb(error.__traceback__)
    explained = isinstance(error, ValueError) or type(error).__name__ in EXPLAINED_ERRORS
    return explained and Path(__file__).parent in Path(frames[-1].filename).parents


def _lost_peer(error: BaseException | None) -> bool:
    while error is not None:
        if type(error).__name__ in NETWORK_ERRORS or any(sign in str(error) for sign in NETWORK_SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_report(reports: Path, *, since: float) -> str | None:
    deadline = time.monotonic() + PEER_SECONDS
    while time.monotonic() < deadline:
        for report in reports.glob("rank-*.txt"):
            if report.stat().st_mtime >= since:
                return report.stem.replace("-", " ")
        time.sleep(0.1)
    return None


if __name__ == "__main__":
    sys.exit(main())
