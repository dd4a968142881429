"""What earlier attempts left: whether their records fit the step this one begins at, and whether the run is finished."""

import logging

from dstrain.errors import UserError
from dstrain.reporting.card import write_card
from dstrain.run.assemble import Assembly
from dstrain.run.finish import complete_export, find_best_step
from dstrain.run_folder.layout import BEST, FINAL
from dstrain.run_folder.outcome import RunOutcome
from dstrain.run_folder.rows import EventRow, read_rows
from dstrain.training.hooks.evaluate import EvaluateHook

log = logging.getLogger(__name__)


def compare_with_history(assembly: Assembly) -> None:
    """Check that the rows in the folder fit the step at which this attempt begins.

    Raises:
        UserError: the rows show a run that was saved, but there is no checkpoint: training would begin at step 0 and
            replace what that run left.
    """
    path, step = assembly.folder.metrics, assembly.first_progress.step
    rows = read_rows(path) if path.exists() else []
    saved = [
        row.step for row in rows if isinstance(row, EventRow) and row.event in ("stop", "finish", "resume") and row.step
    ]
    if assembly.resume is None and saved:
        raise UserError(
            f"{assembly.folder.checkpoints} holds no checkpoint, but this run was saved at step {max(saved)} earlier ({path}): "
            "training would begin at step 0 and replace its models and scores. Restore the checkpoints, give another "
            f"output_dir, or remove {assembly.folder.path} to begin again"
        )
    should_have_row = step >= assembly.config.logging.every_steps
    if (
        assembly.resume
        and should_have_row
        and not any(row.step <= step for row in rows if not isinstance(row, EventRow))
    ):
        assembly.warnings.append(
            f"{path} has no rows up to step {step}, where the run resumes: plots, tables and the card begin there"
        )


def agree_on_finished(assembly: Assembly) -> bool:
    """Whether the run is finished; a collective call.

    Missing models and the card of a finished run are made, since a kill may have come before them.
    """
    finished = assembly.ranks.rank == 0 and _is_finished(assembly)
    if finished:
        for name, step in _models_of(assembly).items():
            complete_export(assembly.folder, name=name, step=step)
        write_card(assembly.folder.path)
        log.info(
            "%s is finished; use another output_dir to start a new run",
            assembly.folder.path,
        )
        assembly.attempt.report(
            RunOutcome("finished", 0, step=assembly.first_progress.step, attempt=assembly.attempt.number)
        )
    return bool(assembly.ranks.broadcast(finished, bool))


def _is_finished(assembly: Assembly) -> bool:
    metrics = assembly.folder.metrics
    if assembly.resume is None or assembly.resume.allowed or not metrics.exists():
        return False
    rows = [row for row in read_rows(metrics) if isinstance(row, EventRow) and row.event != "unsaved"]
    # at this very step: a writer that had lost the lease may have finished from checkpoints that are ignored
    return bool(rows) and rows[-1].event == "finish" and rows[-1].step == assembly.resume.state.step


def _models_of(assembly: Assembly) -> dict[str, int]:
    """The models of a finished run by the name of their folder, and the step whose weights each must hold."""
    assert assembly.resume is not None
    best = find_best_step(assembly.folder, known=assembly.resume.state.hooks[EvaluateHook.name]["best"])
    return {FINAL: assembly.resume.state.step} | ({BEST: best} if best is not None else {})
