"""The program that torchrun, srun and python start to use a model. Checks the request before importing torch.

python -m dstrain.predict RUN --input new.txt --output new.en.txt       the run's best model
python -m dstrain.predict RUN --step N < new.txt                        one of its checkpoints
python -m dstrain.predict MODEL --target-language en --input new.tsv    any model folder or hub name
"""

import logging
import os
import signal
import sys
from collections.abc import Sequence

from dstrain.cluster.console import describe, hide_gpus, let_go_of, quiet_libraries, run_program, say
from dstrain.cluster.environment import ProcessInfo, read_process_info
from dstrain.cluster.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from dstrain.cluster.progress import phase
from dstrain.cluster.rendezvous import Rendezvous, needs_rendezvous, open_rendezvous
from dstrain.errors import UserError
from dstrain.run.predict_request import PredictRequest, parse_arguments, plan_prediction

log = logging.getLogger("dstrain")


def main(argv: Sequence[str] | None = None, *, program: str = "launch/predict.py") -> int:
    """Run one rank of a prediction; returns the exit code: 0 done, 1 failed, 2 wrong arguments, 130 Ctrl-C."""
    options = parse_arguments(sys.argv[1:] if argv is None else argv, program=program)
    try:
        process = read_process_info(os.environ)
    except UserError as error:  # of this process alone, which may be in a pod with a log of its own
        say(error, err=True)
        return EXIT_USAGE
    try:
        request = plan_prediction(options)
        rendezvous = _meet(process, request=request)
    except (UserError, OSError) as error:
        if process.local_rank == 0:  # each node has its log
            say(describe(error), err=True)
        return EXIT_USAGE
    quiet_libraries(process)
    if request.settings.machine.device == "cpu":
        hide_gpus()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that no half file is left
    try:
        _predict(request, process=process, rendezvous=rendezvous)
    except BrokenPipeError:
        let_go_of(sys.stdout)  # no one reads the output any more, as after `| head`
    except (UserError, OSError) as error:
        if process.rank == 0 or not getattr(error, "is_said_by_rank_0", False):
            say(describe(error) if process.rank == 0 else f"rank {process.rank}: {describe(error)}", err=True)
        if process.world_size > 1:
            # a normal exit would wait for the peers in destructors of the process group
            os._exit(EXIT_FAILED)
        return EXIT_FAILED
    except KeyboardInterrupt:
        if process.world_size > 1:
            os._exit(EXIT_INTERRUPTED)
        return EXIT_INTERRUPTED
    return 0


def _meet(process: ProcessInfo, *, request: PredictRequest) -> Rendezvous | None:
    if not needs_rendezvous(process):
        return None
    if request.run is None:
        raise UserError(
            "a model folder is no place to agree on a port: start with torchrun, or set MASTER_PORT to a free one"
        )
    return open_rendezvous(process, environment=os.environ, folder=request.run.rendezvous)


def _predict(request: PredictRequest, *, process: ProcessInfo, rendezvous: Rendezvous | None) -> None:
    # which takes seconds: only after the request has been checked
    with phase("importing torch and transformers"):
        from dstrain.run.agreement import check_same_start
        from dstrain.run.predict import predict
        from dstrain.run.scoring import join_scorers

    ranks = join_scorers(process, machine=request.settings.machine, rendezvous=rendezvous)
    asked = {"MODEL": request.model, "--step": request.step, **request.given, "--n-best": request.num_best}
    check_same_start(request.settings, options=asked, ranks=ranks)
    try:
        predict(request, ranks=ranks)
    finally:
        if sys.exc_info()[0] in (None, BrokenPipeError):
            ranks.leave()


if __name__ == "__main__":
    run_program(main)
