"""What an earlier start of a run has left, where the next begins."""

import logging

from dstrain.errors import UserError
from dstrain.reporting.card import write_card
from dstrain.run.assemble import Assembly
from dstrain.run.finish import BEST, FINAL, complete_export, find_best_step
from dstrain.run_folder.outcome import RunOutcome
from dstrain.run_folder.rows import METRICS_FILE, EventRow, read_rows
from dstrain.training.hooks.evaluate import EvaluateHook

log = logging.getLogger(__name__)


def compare_with_history(assembly: Assembly) -> None:
    """Whether the folder's rows fit the place where the run begins.

    Raises:
        UserError: the folder tells of a run that was saved, and no checkpoint is there: a start would begin from step 0
            and replace what that run left.
    """
    path, step = assembly.run_dir / METRICS_FILE, assembly.first_progress.step
    rows = read_rows(path) if path.exists() else []
    saved = [
        row.step for row in rows if isinstance(row, EventRow) and row.event in ("stop", "finish", "resume") and row.step
    ]
    if assembly.resume is None and saved:
        raise UserError(
            f"{assembly.checkpoints} holds no checkpoint, but this run was saved at step {max(saved)} before ({path}): a start "
            "would begin from step 0 and replace its models and scores. Restore the checkpoints, give another output_dir, "
            f"or remove {assembly.run_dir} to begin again"
        )
    was_row_due = step >= assembly.config.logging.every_steps
    if assembly.resume and was_row_due and not any(row.step <= step for row in rows if not isinstance(row, EventRow)):
        assembly.warnings.append(
            f"{path} has no rows up to step {step}, where the run goes on: plots, tables and the card will not tell of them"
        )


def agree_on_finished(assembly: Assembly) -> bool:
    """Whether the run had come to its end before; its card is written again, since a kill may have come between."""
    finished = assembly.ranks.rank == 0 and _is_finished(assembly)
    if finished:
        for name, step in _models_of(assembly).items():
            complete_export(assembly.run_dir, name=name, step=step)
        write_card(assembly.run_dir)
        log.info(
            "%s is finished: its card, models and scores lie there; another output_dir starts a new run",
            assembly.run_dir,
        )
        assembly.attempt.report(
            RunOutcome("finished", 0, step=assembly.first_progress.step, attempt=assembly.attempt.number)
        )
    return bool(assembly.ranks.broadcast(finished))


def _is_finished(assembly: Assembly) -> bool:
    metrics = assembly.run_dir / METRICS_FILE
    if assembly.resume is None or assembly.resume.allowed or not metrics.exists():
        return False
    rows = [row for row in read_rows(metrics) if isinstance(row, EventRow) and row.event != "unsaved"]
    # at that very step: a writer who had lost the folder may have said so of checkpoints that do not count
    return bool(rows) and rows[-1].event == "finish" and rows[-1].step == assembly.resume.state.step


def _models_of(assembly: Assembly) -> dict[str, int]:
    """The models of a finished run by the name of their folder, and the steps whose weights they must hold."""
    assert assembly.resume is not None
    best = find_best_step(assembly.run_dir, known=assembly.resume.state.hooks[EvaluateHook.name]["best"])
    return {FINAL: assembly.resume.state.step} | ({BEST: best} if best is not None else {})
