"""The scores of other programs that a run still lacks at its end."""

from collections.abc import Callable

from dstrain.config.schema import RunConfig
from dstrain.evaluation.external import ExternalScores
from dstrain.run.assemble import Assembly
from dstrain.run.rank_0_work import made_by_rank_0
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import load_record


def external_scores(config: RunConfig, *, folder: RunFolder) -> ExternalScores | None:
    """What has evaluations scored by the programs of the recipe; None if it names none."""
    programs = config.evaluation.external
    return ExternalScores(programs, folder=folder) if programs else None


def find_evaluated(folder: RunFolder) -> list[int]:
    """The steps of the evaluations whose texts are there."""
    return [row.step for row in load_record(folder.path).eval_rows if folder.hypotheses(row.step).is_dir()]


def score_rest(
    scores: ExternalScores, *, folder: RunFolder, best: int | None, should_stop: Callable[[], bool] = lambda: False
) -> None:
    """Wait for all scores that the evaluations of a run lack, and for those of the best one."""
    for step in find_evaluated(folder):
        scores.add(step, is_last=step == best)
    scores.finish(should_stop=should_stop)


def score_at_end(
    assembly: Assembly, *, scores: ExternalScores | None, best: int | None, should_stop: Callable[[], bool]
) -> None:
    """`score_rest` on rank 0, for which the others wait; all ranks call it."""
    config = assembly.config
    if not config.evaluation.external or config.machine.evaluation_job is not None:
        return

    def finish() -> list[str]:
        assert scores is not None
        score_rest(scores, folder=assembly.folder, best=best, should_stop=should_stop)
        return []

    assembly.attempt.phases.enter("evaluation")
    made_by_rank_0(finish, run_dir=assembly.folder.path, ranks=assembly.ranks, phases=assembly.attempt.phases)
