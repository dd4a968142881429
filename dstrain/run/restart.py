"""What earlier attempts left: a checkpoint to resume from, records that fit its step, or a finished run."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dstrain.attempt.attempt import Attempt
from dstrain.checkpoint.resume import Found, check_recipe, find_checkpoint
from dstrain.cluster.process_group import Ranks
from dstrain.config.arguments import shell_command
from dstrain.config.schema import RECIPE_KEYS, RunConfig
from dstrain.config.spelling import keep_spelling
from dstrain.errors import UserError
from dstrain.run.assemble import Assembly
from dstrain.run.finish import complete_export, find_best_step, say_end
from dstrain.run.report import report_at_end
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.layout import BEST, FINAL, RunFolder
from dstrain.run_folder.outcome import RunOutcome
from dstrain.run_folder.rows import EventRow, read_rows
from dstrain.training.hooks.evaluate import EvaluateHook

log = logging.getLogger(__name__)


def find_start(config: RunConfig, *, attempt: Attempt, allow_changed: Iterable[str]) -> Found | None:
    """The checkpoint that the run resumes from, if it may with this recipe; None for a new run, and on all ranks but 0.

    Raises:
        ResumeRefused: the recipe has changed, or no checkpoint is valid.
        CheckpointError: a checkpoint does not hold the state of a run.
        UserError: the rows in the folder show a run that was saved, but there is no checkpoint.
    """
    if attempt.ranks.rank != 0:
        return None
    folder = RunFolder(Path(config.run_dir))
    found = find_checkpoint(folder.checkpoints, claims=read_claims(folder.path))
    if found is None:
        _refuse_lost_checkpoints(folder)
    else:
        config = keep_spelling(config, as_in=found.manifest.recipe)
        recipe = config.model_dump(mode="json", include=set(RECIPE_KEYS))
        check_recipe(found, recipe=recipe, allowed=allow_changed)
    return found


def agree_on_spelling(config: RunConfig, *, found: Found | None, ranks: Ranks) -> RunConfig:
    """The configuration as the run that was `found` writes it, where both mean the same; a collective call."""
    began: dict[str, Any] = ranks.broadcast(found.manifest.recipe if found else {}, dict[str, Any])
    return keep_spelling(config, as_in=began)


def _refuse_lost_checkpoints(folder: RunFolder) -> None:
    """Raise UserError where training would begin at step 0 and replace what a run that was saved has left."""
    rows = read_rows(folder.metrics) if folder.metrics.exists() else []
    saved = [
        row.step for row in rows if isinstance(row, EventRow) and row.event in ("stop", "finish", "resume") and row.step
    ]
    if saved:
        raise UserError(
            f"{folder.checkpoints} holds no checkpoint, but this run was saved at step {max(saved)} earlier "
            f"({folder.metrics}): training would begin at step 0 and replace its models and scores. Restore the checkpoints, "
            f"give another output_dir, or remove {folder.path} to begin again"
        )


def compare_with_history(assembly: Assembly) -> None:
    """Warn if the rows in the folder do not reach back to the step at which this attempt begins."""
    path, step = assembly.folder.metrics, assembly.first_progress.step
    rows = read_rows(path) if path.exists() else []
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

    Missing models, the card and the report of a finished run are made, since a kill may have come before them.

    Raises:
        UserError: the run did not finish, but is past the length that the user has allowed.
    """
    finished = assembly.ranks.rank == 0 and _is_finished(assembly)
    if finished:
        if _has_changed(assembly):
            log.warning("%s; what has changed is not used", _describe_length(assembly))
        for name, step in _models_of(assembly).items():
            complete_export(assembly.folder, name=name, step=step)
        from dstrain.reporting.card import write_card  # brings matplotlib, for which no start should wait

        write_card(assembly.folder.path)
        report_at_end(assembly.folder, is_own=False, beat=assembly.attempt.phases.mark_progress)
        log.info("%s is finished; use another output_dir to start a new run", assembly.folder.path)
        outcome = RunOutcome("finished", 0, step=assembly.first_progress.step, attempt=assembly.attempt.number)
        assembly.attempt.report(outcome)
        say_end(assembly.folder, outcome=replace(outcome, message=_last_reason(assembly.folder)))
    elif assembly.ranks.rank == 0 and _has_changed(assembly) and assembly.total_steps < assembly.first_progress.step:
        raise UserError(
            f"{_describe_length(assembly)}: allow a greater length, or take the model as it is: "
            f"{shell_command(['dstrain', 'export', assembly.folder.path, 'MODEL_FOLDER'])}"
        )
    return bool(assembly.ranks.broadcast(finished, bool))


def _is_finished(assembly: Assembly) -> bool:
    metrics = assembly.folder.metrics
    if assembly.resume is None or not metrics.exists():
        return False
    if _has_changed(assembly) and assembly.total_steps > assembly.first_progress.step:
        return False
    rows = [row for row in read_rows(metrics) if isinstance(row, EventRow) and row.event != "unsaved"]
    # at this very step: a writer that had lost the lease may have finished from checkpoints that are ignored
    return bool(rows) and rows[-1].event == "finish" and rows[-1].step == assembly.resume.state.step


def _last_reason(folder: RunFolder) -> str:
    """Why a finished run ended, if it was not at its last step."""
    events = [row for row in read_rows(folder.metrics) if isinstance(row, EventRow) and row.event == "finish"]
    return (events[-1].message or "") if events else ""


def _has_changed(assembly: Assembly) -> bool:
    return assembly.resume is not None and bool(assembly.resume.allowed)


def _describe_length(assembly: Assembly) -> str:
    """That the run has reached the length that the recipe asks for."""
    training, progress = assembly.config.training, assembly.first_progress
    if training.epochs is None:
        reached = f"the run has {progress.step} steps already, and training.max_steps asks for {training.max_steps}"
    else:
        epoch = assembly.plan.epoch_at(progress.position)
        reached = f"the run has trained {epoch:.4g} epochs already, and training.epochs asks for {training.epochs:g}"
    return f"{reached}: nothing to train"


def _models_of(assembly: Assembly) -> dict[str, int]:
    """The models of a finished run by the name of their folder, and the step whose weights each must hold."""
    assert assembly.resume is not None
    best = find_best_step(assembly.folder, known=assembly.resume.state.hooks[EvaluateHook.name]["best"])
    return {FINAL: assembly.resume.state.step} | ({BEST: best} if best is not None else {})
