"""The ends of a run: what it leaves when it ends, and what an earlier end has left where it begins. Trains nothing."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from dstrain.attempt.lease import Lease, LeaseHeld, acquire
from dstrain.cluster.exit_codes import EXIT_FAILED, EXIT_PREEMPTED
from dstrain.cluster.processes import this_process
from dstrain.config.machine import Machine
from dstrain.errors import UserError
from dstrain.models.save import exported_step
from dstrain.reporting.card import write_card
from dstrain.run.assemble import Assembly
from dstrain.run.export import export_checkpoint, export_live
from dstrain.run_folder.outcome import RunOutcome
from dstrain.run_folder.record import load_record
from dstrain.training.hooks.preempt import PreemptHook
from dstrain.training.state import Control, Progress, event_row

BEST, FINAL = "best", "final"
LEASE_TRIES = 12

log = logging.getLogger(__name__)


def find_best_step(run_dir: Path, *, known: Mapping[str, float] | None) -> int | None:
    """The step of the best evaluation by the run's records, which other jobs may have added to, else as the run knows it."""
    best = load_record(run_dir).best
    if best is not None:
        return best.step
    return int(known["step"]) if known else None


def finish(
    assembly: Assembly, *, progress: Progress, control: Control, preempt: PreemptHook, best: Mapping[str, float] | None
) -> int:
    """Export the last model, see that the best is there, write the card and the outcome; gives the exit code."""
    if not control.preempted:
        assembly.attempt.phases.enter("export")
        export_live(assembly, name=FINAL, step=progress.step, check=True)
    assembly.attempt.phases.enter("finish")
    if assembly.ranks.rank == 0:
        control.record(event_row("stop" if control.preempted else "finish", progress.step, message=control.stop_reason))
        # after that row: whoever scores from now on looks after the best model itself
        step = None if control.preempted else find_best_step(assembly.run_dir, known=best)
        if step is not None:
            complete_export(assembly.run_dir, name=BEST, step=step)
        _write_card(assembly.run_dir)
        _name_pending(assembly)
    if control.preempted:
        # asked of all, since a signal may reach any rank
        (milliseconds,) = assembly.ranks.max([round(1000 * preempt.seconds_since_told())])
        done = "a save" if control.unsaved is None else "a save that failed"
        log.info(
            "%s: ended %.1f s later, after the step under way and %s", control.stop_reason, milliseconds / 1000, done
        )
    outcome = _outcome(control, step=progress.step, attempt=assembly.attempt.number)
    assembly.attempt.report(outcome)
    assembly.ranks.barrier()
    assert outcome.exit_code is not None
    return outcome.exit_code


def refresh_finished_run(run_dir: Path, *, machine: Machine) -> bool:
    """Write the best model and the card of a finished run again, by one process, since scores have come after its end.

    False for a run that has not finished, which does so itself: nobody may hold its folder when it is started again.
    """
    if load_record(run_dir).status != "finished":
        return False
    lease = _wait_for_lease(run_dir, machine=machine)
    if lease is None:
        log.warning("%s is being written to: its best model and card are as its writer leaves them", run_dir)
        return True
    try:
        step = find_best_step(run_dir, known=None)
        if step is not None:
            complete_export(run_dir, name=BEST, step=step)
        _write_card(run_dir)
    finally:
        lease.release()
    return True


def _wait_for_lease(run_dir: Path, *, machine: Machine) -> Lease | None:
    """The lease of a run that is just ending; None if somebody else goes on writing."""
    for _ in range(LEASE_TRIES):
        try:
            return acquire(run_dir, holder=this_process(), stale_seconds=machine.lease_seconds, is_start=False)
        except LeaseHeld:
            time.sleep(machine.lease_seconds / LEASE_TRIES)
    return None


def _name_pending(assembly: Assembly) -> None:
    due = load_record(assembly.run_dir).pending_rows
    if due and assembly.ranks.process.launcher != "srun":  # slurm/train.sbatch submits a job for them
        log.warning("%d evaluations have no scores yet: dstrain evaluate %s --pending", len(due), assembly.run_dir)


def _outcome(control: Control, *, step: int, attempt: int) -> RunOutcome:
    if control.unsaved is not None:
        log.error("%s; once it can be, the same command goes on from the newest checkpoint", control.unsaved)
        return RunOutcome("failed", EXIT_FAILED, control.unsaved, step=step, attempt=attempt)
    if control.preempted:
        return RunOutcome("preempted", EXIT_PREEMPTED, control.stop_reason or "", step=step, attempt=attempt)
    return RunOutcome("finished", 0, control.stop_reason or "", step=step, attempt=attempt)


def _write_card(run_dir: Path) -> None:
    try:
        card = write_card(run_dir)
    except OSError as error:  # a full disk must not hide how the run ended
        log.error("the card could not be written (%s): once there is room, dstrain card %s", error, run_dir)
        return
    models = [run_dir / name for name in (BEST, FINAL) if (run_dir / name).is_dir()]
    log.info("card: %s  plots: %s  model: %s", card, run_dir / "plots", models[0] if models else "none yet")


def complete_export(run_dir: Path, *, name: str, step: int) -> None:
    """Make a model from its checkpoint where its folder was not written, was cut short by a kill, or was removed."""
    if exported_step(run_dir / name) == step:
        return
    try:
        export_checkpoint(run_dir, step=step, folder=run_dir / name)
    except (UserError, OSError) as error:
        log.warning("%s does not hold the model of step %d: %s", run_dir / name, step, error)
