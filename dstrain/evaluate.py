"""The program that srun, torchrun and python start to score models. Checks the request before importing torch.

python -m dstrain.evaluate RUN                          the best model again, into <run>/evaluate
python -m dstrain.evaluate RUN --pending                the evaluations that the run left to another job
python -m dstrain.evaluate RUN --step N --as NAME 'data.eval=[{path: other.tsv}]'    another test set
python -m dstrain.evaluate MODEL --config RECIPE        any model folder or hub name
"""

import logging
import os
import sys
from collections.abc import Sequence

from dstrain.cluster.console import describe, hide_gpus, quiet_libraries, run_program, say
from dstrain.cluster.environment import read_process_info
from dstrain.cluster.exit_codes import EXIT_FAILED, EXIT_USAGE
from dstrain.cluster.progress import phase
from dstrain.cluster.rendezvous import needs_rendezvous, open_rendezvous
from dstrain.errors import UserError
from dstrain.run.evaluation_request import EFFECTIVE_KEYS, parse_arguments, plan_evaluation
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.ownership import refuse_linked_folders

log = logging.getLogger("dstrain")


def main(argv: Sequence[str] | None = None, *, program: str = "launch/evaluate.py") -> int:
    """Run one rank of an evaluation; returns the exit code: 0 scored, 1 failed, 2 wrong arguments."""
    options = parse_arguments(sys.argv[1:] if argv is None else argv, program=program)
    try:
        process = read_process_info(os.environ)
    except UserError as error:  # of this process alone, which may be in a pod with a log of its own
        say(error, err=True)
        return EXIT_USAGE
    try:
        request = plan_evaluation(options)
        for folder in (request.run, RunFolder(request.output)):
            if folder is not None:
                refuse_linked_folders(folder)
        rendezvous = None
        if needs_rendezvous(process):
            meeting_place = RunFolder(request.output).rendezvous
            rendezvous = open_rendezvous(process, environment=os.environ, folder=meeting_place)
    except (UserError, OSError) as error:
        if process.local_rank == 0:  # each node has its log
            say(describe(error), err=True)
        return EXIT_USAGE
    quiet_libraries(process)
    if request.config.machine.device == "cpu":
        hide_gpus()
    if request.ignored and process.rank == 0:
        keys = ", ".join(EFFECTIVE_KEYS)
        say(f"ignored, since they do not affect scores: {', '.join(request.ignored)} (keys that do: {keys})", err=True)
    log.info("%s: the scores go there", request.output)
    # which takes seconds: only after the request has been checked
    with phase("importing torch and transformers"):
        from dstrain.run.agreement import check_same_start
        from dstrain.run.scoring import join_scorers, score_model, score_pending

    try:
        ranks = join_scorers(process, machine=request.config.machine, rendezvous=rendezvous)
        scored = {"MODEL": request.model, "--step": request.step, "output": str(request.output)}
        check_same_start(request.config, options=scored, ranks=ranks)
        if request.is_pending:
            score_pending(RunFolder(request.output), config=request.config, ranks=ranks)
        else:
            score_model(request, ranks=ranks)
        ranks.leave()
    except (UserError, OSError) as error:
        say(describe(error) if process.rank == 0 else f"rank {process.rank}: {describe(error)}", err=True)
        if process.world_size > 1:
            # a normal exit would wait for the peers in destructors of the process group
            os._exit(EXIT_FAILED)
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    run_program(main)
