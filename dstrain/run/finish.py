"""The end of an attempt: exports the models, writes the card, the report and the outcome."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from dstrain.attempt.lease import Lease, LeaseHeld, acquire
from dstrain.checkpoint.store import find_checkpoint
from dstrain.cluster.console import own_program
from dstrain.cluster.exit_codes import EXIT_FAILED, EXIT_PREEMPTED
from dstrain.cluster.processes import this_process
from dstrain.config.arguments import shell_command
from dstrain.config.machine import Machine
from dstrain.errors import UserError
from dstrain.run.assemble import Assembly
from dstrain.run.average import average_at_end
from dstrain.run.export import export_checkpoint, export_live
from dstrain.run.external_scores import external_scores, score_at_end, score_rest
from dstrain.run.hooks import Hooks
from dstrain.run.report import report_at_end
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.layout import BEST, FINAL, RunFolder
from dstrain.run_folder.outcome import RunOutcome
from dstrain.run_folder.reading import read_exported_step
from dstrain.run_folder.record import load_record
from dstrain.run_folder.scores import SOURCES
from dstrain.training.hooks.preempt import PreemptHook
from dstrain.training.state import Control, Progress, new_event

LEASE_TRIES = 12
"""Tries to take the lease of a run that is ending, within the time after which a lease is stale."""

log = logging.getLogger(__name__)


def find_best_step(folder: RunFolder, *, known: Mapping[str, Any] | None) -> int | None:
    """The step of the best evaluation: from the run's records, which may include scores of other jobs, else the `known` one."""
    best = load_record(folder.path).best
    if best is not None:
        return best.step
    return int(known["step"]) if known else None


def finish(assembly: Assembly, *, progress: Progress, control: Control, hooks: Hooks) -> int:
    """Export the last model, complete the best one, write card, report and outcome; returns the exit code."""
    preempt, step = hooks.preempt, None
    if control.stop_reason is not None and not control.preempted:
        log.info("training ends at step %d of %d: %s", progress.step, assembly.total_steps, control.stop_reason)
    if not control.preempted:
        assembly.attempt.phases.enter("export")
        export_live(assembly, name=FINAL, step=progress.step, check=True)
    assembly.attempt.phases.enter("finish")
    if assembly.ranks.rank == 0:
        control.record(new_event("stop" if control.preempted else "finish", progress.step, message=control.stop_reason))
        # after that row: from then on a job that adds scores updates the best model itself
        step = None if control.preempted else find_best_step(assembly.folder, known=hooks.evaluation.best)
        if step is not None:
            complete_export(assembly.folder, name=BEST, step=step)
    if not control.preempted:
        average_at_end(assembly, should_stop=_mark_progress(assembly))
        score_at_end(assembly, scores=hooks.external.scores, best=step, should_stop=_stop_on_signal(assembly, preempt))
    if assembly.ranks.rank == 0:
        _write_card(assembly.folder)
        if not control.preempted:  # whoever was asked to stop has seconds; the report can be written at any time
            report_at_end(assembly.folder, is_own=True, beat=assembly.attempt.phases.mark_progress)
        _report_pending(assembly)
    if control.preempted:
        # over all ranks, since a signal may reach any of them
        (milliseconds,) = assembly.ranks.max([round(1000 * preempt.seconds_since_signal())])
        done = "a save" if control.unsaved is None else "a save that failed"
        log.info(
            "%s: ended %.1f s later, after the current step and %s", control.stop_reason, milliseconds / 1000, done
        )
    outcome = _outcome(control, step=progress.step, attempt=assembly.attempt.number)
    assembly.attempt.report(outcome)
    if assembly.ranks.rank == 0:
        say_end(assembly.folder, outcome=outcome)
    assembly.ranks.barrier()
    assert outcome.exit_code is not None
    return outcome.exit_code


def _mark_progress(assembly: Assembly) -> Callable[[], bool]:
    """For an evaluation at the end, which nothing interrupts: its batches are progress for the watchdog."""

    def mark() -> bool:
        assembly.attempt.phases.mark_progress()
        return False

    return mark


def _stop_on_signal(assembly: Assembly, preempt: PreemptHook) -> Callable[[], bool]:
    """For work at the end that may be left out: other programs are waited for until a signal arrives."""

    def should_stop() -> bool:
        attempt = assembly.attempt
        attempt.phases.mark_progress()
        return preempt.should_stop(is_stop_requested=attempt.is_stop_requested, request_stop=attempt.request_stop)

    return should_stop


def refresh_finished_run(folder: RunFolder, *, machine: Machine) -> bool:
    """Update the best model, the card and the report of a finished run after scores were added; one process calls it.

    Returns False and does nothing if the run is not finished: it updates them itself, and its lease must be free for that.
    """
    if load_record(folder.path).status != "finished":
        return False
    lease = _wait_for_lease(folder, machine=machine)
    if lease is None:
        log.warning("another process is writing to %s: it will update the best model and the card", folder.path)
        return True
    try:
        step = find_best_step(folder, known=None)
        if step is not None:
            complete_export(folder, name=BEST, step=step)
        if (scores := external_scores(read_run_config(folder), folder=folder)) is not None:
            score_rest(scores, folder=folder, best=step)
        _write_card(folder)
        report_at_end(folder, is_own=False)
    finally:
        lease.release()
    return True


def _wait_for_lease(folder: RunFolder, *, machine: Machine) -> Lease | None:
    """The lease of a run that may just be ending; None if another process keeps it."""
    for _ in range(LEASE_TRIES):
        try:
            return acquire(folder.path, holder=this_process(), stale_seconds=machine.lease_seconds, is_start=False)
        except LeaseHeld:
            time.sleep(machine.lease_seconds / LEASE_TRIES)
    return None


def _report_pending(assembly: Assembly) -> None:
    run_dir = assembly.folder.path
    pending = load_record(run_dir).pending_rows
    if pending and assembly.ranks.process.launcher != "srun":  # slurm/train.sbatch submits a job for them
        log.warning(
            "%d evaluations have no scores yet; to score them: %s",
            len(pending),
            shell_command(["dstrain", "evaluate", run_dir, "--pending"]),
        )


def _outcome(control: Control, *, step: int, attempt: int) -> RunOutcome:
    if control.unsaved is not None:
        log.error(
            "%s; once there is room on the disk, the same command resumes from the newest checkpoint", control.unsaved
        )
        return RunOutcome("failed", EXIT_FAILED, control.unsaved, step=step, attempt=attempt)
    if control.preempted:
        return RunOutcome("preempted", EXIT_PREEMPTED, control.stop_reason or "", step=step, attempt=attempt)
    return RunOutcome("finished", 0, control.stop_reason or "", step=step, attempt=attempt)


def say_end(folder: RunFolder, *, outcome: RunOutcome) -> None:
    """Log why a run ended, what is best and what to do next."""
    from dstrain.reporting.ending import describe_end

    record = load_record(folder.path)
    sources = None if record.best is None else folder.hypotheses(record.best.step) / SOURCES
    if sources is not None and not sources.is_file():
        sources = None
    for line in describe_end(record, outcome=outcome, sources=sources, program=own_program()):
        log.info("%s", line)


def _write_card(folder: RunFolder) -> None:
    from dstrain.reporting.card import write_card  # brings matplotlib, for which no start should wait

    try:
        write_card(folder.path)
    except OSError as error:  # a full disk must not change how the run ends
        log.error(
            "the card could not be written (%s): once there is room, write it with: %s",
            error,
            shell_command(["dstrain", "card", folder.path]),
        )


def complete_export(folder: RunFolder, *, name: str, step: int) -> None:
    """Export a model from its checkpoint if its folder is missing, incomplete after a kill, or of another step."""
    model = folder.model(name)
    if read_exported_step(model) == step:
        return
    try:
        export_checkpoint(folder, directory=find_checkpoint(folder.path, step=step), to=model)
    except (UserError, OSError) as error:
        log.warning("%s does not hold the model of step %d: %s", model, step, error)
