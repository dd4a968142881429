"""What an earlier start of a run has left, where the next begins."""

import logging

from dstrain.errors import UserError
from dstrain.reporting.card import write_card
from dstrain.run.assemble import Built
from dstrain.run.finish import BEST, FINAL, complete_export, find_best_step
from dstrain.run_folder.outcome import RunOutcome
from dstrain.run_folder.rows import METRICS_FILE, EventRow, read_rows
from dstrain.training.hooks.evaluate import EvaluateHook

log = logging.getLogger(__name__)


def compare_with_history(built: Built) -> None:
    """Whether the folder's rows fit the place where the run begins.

    Raises:
        UserError: the folder tells of a run that was saved, and no checkpoint is there: a start would begin from step 0
            and replace what that run left.
    """
    path, step = built.run_dir / METRICS_FILE, built.first_progress.step
    rows = read_rows(path) if path.exists() else []
    saved = [
        row.step for row in rows if isinstance(row, EventRow) and row.event in ("stop", "finish", "resume") and row.step
    ]
    if built.resume is None and saved:
        raise UserError(
            f"{built.checkpoints} holds no checkpoint, but this run was saved at step {max(saved)} before ({path}): a start "
            "would begin from step 0 and replace its models and scores. Restore the checkpoints, give another output_dir, "
            f"or remove {built.run_dir} to begin again"
        )
    was_row_due = step >= built.config.logging.every_steps
    if built.resume and was_row_due and not any(row.step <= step for row in rows if not isinstance(row, EventRow)):
        built.warnings.append(
            f"{path} has no rows up to step {step}, where the run goes on: plots, tables and the card will not tell of them"
        )


def agree_on_finished(built: Built) -> bool:
    """Whether the run had come to its end before; its card is written again, since a kill may have come between."""
    finished = built.ranks.rank == 0 and _is_finished(built)
    if finished:
        for name, step in _models_of(built).items():
            complete_export(built.run_dir, name=name, step=step)
        write_card(built.run_dir)
        log.info(
            "%s is finished: its card, models and scores lie there; another output_dir starts a new run", built.run_dir
        )
        built.guard.report(RunOutcome("finished", 0, step=built.first_progress.step, attempt=built.guard.attempt))
    return bool(built.ranks.broadcast(finished))


def _is_finished(built: Built) -> bool:
    metrics = built.run_dir / METRICS_FILE
    if built.resume is None or built.resume.allowed or not metrics.exists():
        return False
    rows = [row for row in read_rows(metrics) if isinstance(row, EventRow) and row.event != "unsaved"]
    # at that very step: a writer who had lost the folder may have said so of checkpoints that do not count
    return bool(rows) and rows[-1].event == "finish" and rows[-1].step == built.resume.state.step


def _models_of(built: Built) -> dict[str, int]:
    """The models of a finished run by the name of their folder, and the steps whose weights they must hold."""
    assert built.resume is not None
    best = find_best_step(built.run_dir, known=built.resume.state.hooks[EvaluateHook.name]["best"])
    return {FINAL: built.resume.state.step} | ({BEST: best} if best is not None else {})
