"""Trains what was built: hooks around the loop, then a model and a card, and an exit code that says what to do next."""

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from dstrain.build import Built, build
from dstrain.checkpoint.export import exported_step, recover_export
from dstrain.checkpoint.manifest import CheckpointError
from dstrain.checkpoint.resume import Resume
from dstrain.checkpoint.saver import Outcome, Saver, WholeCheckpoints
from dstrain.checkpoint.state import RunState
from dstrain.checkpoint.store import carry_out, plan_pruning, sync_path
from dstrain.cluster.environment import EXIT_PREEMPTED, Place
from dstrain.cluster.lease import read_claims
from dstrain.cluster.outcome import RunOutcome
from dstrain.cluster.phases import Drill
from dstrain.cluster.process_group import join_ranks
from dstrain.config.load import dump_config
from dstrain.config.schema import RunConfig
from dstrain.data.loader import Loader, StepBatch
from dstrain.describe import describe_run
from dstrain.engine.engine import Fault
from dstrain.engine.faults import Finding, find_bad_rows
from dstrain.evaluation.evaluate import EvaluationResult, evaluate
from dstrain.export import export_checkpoint, export_live
from dstrain.guard import start_guard
from dstrain.models.families import decoder_start_id, generation_arguments
from dstrain.models.loss import Seq2SeqLoss
from dstrain.prepare import locate_training_rows
from dstrain.reporting.card import write_card
from dstrain.reporting.records import METRICS_FILE, EventRow, append_row, read_rows, write_run_info
from dstrain.training.hooks.checkpoint import CheckpointHook
from dstrain.training.hooks.evaluate import EvaluateHook
from dstrain.training.hooks.log import LogHook
from dstrain.training.hooks.preempt import PreemptHook
from dstrain.training.hooks.progress import ProgressHook
from dstrain.training.hooks.quarantine import Quarantine
from dstrain.training.loop import train
from dstrain.training.state import Control, Hook, Progress, event_row

BEST, FINAL = "best", "final"
EXIT_UNSAVED = 1
"""The run ended in order, but its last checkpoint could not be written."""

log = logging.getLogger(__name__)


def run(
    config: RunConfig,
    *,
    place: Place,
    command: str,
    allowed: Iterable[str] = (),
    drill: Drill | None = None,
    debug: bool = False,
) -> int:
    """Train a recipe from its beginning or from its newest checkpoint; gives the exit code.

    Args:
        allowed: fields that may have changed since the checkpoint.
        drill: when this process is to be killed, to prove that nothing is lost.

    Raises:
        ValueError: something the user can mend; the message says what and how.
    """
    _quiet_libraries()
    if debug:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.autograd.set_detect_anomaly(True)
    ranks = join_ranks(place, timeout_minutes=config.machine.collective_timeout_minutes)
    preempt = PreemptHook(ranks=ranks)
    if debug:
        shutil.rmtree(config.run_dir, ignore_errors=True)  # a debug run begins anew, and is alone in its folder
    guard = start_guard(Path(config.run_dir), ranks=ranks, machine=config.machine, drill=drill)
    built = build(config, guard=guard, allowed=allowed)
    code = 0 if _agree_on_finished(built) else _train(built, preempt=preempt, command=command)
    guard.close(f"ended with code {code}")
    return code


def _train(built: Built, *, preempt: PreemptHook, command: str) -> int:
    config = built.config
    record = _recorder(built)
    if built.ranks.rank == 0:
        parts = built.run_dir / "config.yaml.tmp"
        parts.write_text(dump_config(config))
        parts.replace(built.run_dir / "config.yaml")
        write_run_info(built.run_dir, _describe(built, command=command))
        record(event_row("resume" if built.resume else "start", built.first_progress.step))
        for warning in built.warnings:
            log.warning("%s", warning)
        for name in (BEST, FINAL):
            recover_export(built.run_dir / name)
    control = Control(record=record)
    loader = _build_loader(built)
    quarantine = _build_quarantine(built, loader=loader)
    hooks = _build_hooks(built, preempt=preempt, quarantine=quarantine)
    progress = train(
        built.engine,
        loader=loader,
        progress=built.first_progress,
        total_steps=built.total_steps,
        epoch_at=built.plan.epoch_at,
        hooks=hooks,
        control=control,
        quarantine=quarantine,
    )
    (best,) = (hook.best for hook in hooks if isinstance(hook, EvaluateHook))
    return _finish(built, progress=progress, control=control, preempt=preempt, best=best)


def _build_loader(built: Built) -> Loader:
    return Loader(
        built.prepared.train,
        built.plan,
        rank=built.ranks.rank,
        world_size=built.ranks.world_size,
        pad_id=built.prepared.tokenizer.pad_token_id,
        decoder_start_id=decoder_start_id(built.model),
        prefetch_steps=built.config.machine.prefetch_steps,
    )


def _build_quarantine(built: Built, *, loader: Loader) -> Quarantine:
    config, ranks, tokenizer = built.config, built.ranks, built.prepared.tokenizer

    def find_rows(batch: StepBatch, fault: Fault, step: int) -> Finding:
        built.guard.phases.enter("search", step=step - 1)
        return find_bad_rows(built.engine, batch, fault=fault, step=step, config=config, ranks=ranks)

    return Quarantine(
        config=config,
        ranks=ranks,
        find_rows=find_rows,
        locate_rows=lambda rows: locate_training_rows(rows, config=config, tokenizer=tokenizer),
        exclude=loader.exclude,
    )


def _build_hooks(built: Built, *, preempt: PreemptHook, quarantine: Quarantine) -> list[Hook]:
    """In the order in which they are called after every step.

    Whoever may stop the run comes first; the checkpoint comes after the log, because it claims everything up to its step,
    the log's row included.
    """
    config, ranks = built.config, built.ranks

    def should_stop() -> bool:
        built.guard.phases.beat()
        return preempt.should_stop(is_told=built.guard.is_told_to_stop, tell=built.guard.tell_to_stop)

    evaluation = EvaluateHook(
        config=config,
        ranks=ranks,
        evaluate=lambda max_batches: _evaluate(built, max_batches=max_batches, should_stop=should_stop),
        export_best=lambda step: _export_best(built, step=step),
        agree_on_stop=preempt.agree,
    )
    logging_hook = LogHook(config=config, ranks=ranks, total_steps=built.total_steps, console=Console(stderr=True))
    stateful: list[Hook] = [preempt, quarantine, evaluation, logging_hook]
    saver = _build_saver(built, evaluation=evaluation)

    def save(progress: Progress) -> Sequence[Outcome]:
        built.guard.phases.enter("wait for save")
        before = saver.finish()
        built.guard.phases.enter("snapshot", step=progress.step)
        scores = evaluation.latest[1] if evaluation.latest and evaluation.latest[0] == progress.step else None
        saver.save(_run_state(built, progress=progress, hooks=stateful), scores=scores)
        return before

    if built.resume is not None:
        _load_hooks(stateful, resume=built.resume)
    checkpoint = CheckpointHook(settings=config.checkpoint, save=save, saves=saver)
    return [*stateful, checkpoint, ProgressHook(enter=built.guard.phases.enter)]


def _load_hooks(hooks: Sequence[Hook], *, resume: Resume) -> None:
    for hook in hooks:
        try:
            hook.load_state(resume.state.hooks[hook.name])
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{resume.directory}: its state of `{hook.name}` is not what this version reads ({error!r}): go on with the "
                "version that saved it, or export its weights and start a new run"
            ) from error


def _build_saver(built: Built, *, evaluation: EvaluateHook) -> Saver:
    is_whole = WholeCheckpoints()
    settings, claims = built.config.checkpoint, read_claims(built.run_dir)

    def reach(phase: str) -> None:
        built.guard.phases.enter(phase, track="save")

    def prune() -> None:
        pruning = plan_pruning(
            built.checkpoints,
            claims=claims,
            keep_last=settings.keep_last,
            keep_steps=[int(evaluation.best["step"])] if evaluation.best else [],
            keep_weights_every=settings.keep_weights_every_steps,
            is_whole=is_whole,
        )
        carry_out(pruning, reach=reach)

    return Saver(
        built.checkpoints,
        engine=built.engine,
        identity=built.identity,
        ranks=built.ranks.beside(),
        check_lease=built.guard.check_lease,
        sync_records=lambda: sync_path(built.run_dir / METRICS_FILE),
        prune=prune,
        reach=reach,
    )


def _run_state(built: Built, *, progress: Progress, hooks: Sequence[Hook]) -> RunState:
    return RunState(
        step=progress.step,
        epoch=progress.position.epoch,
        step_in_epoch=progress.position.step,
        cut=asdict(built.plan.cut),
        data=built.prepared.fingerprints,
        hooks={hook.name: hook.state() for hook in hooks},
    )


def _evaluate(built: Built, *, max_batches: int | None, should_stop: Callable[[], bool]) -> EvaluationResult | None:
    built.guard.phases.enter("evaluation")
    with built.engine.gathered() as model:
        assert isinstance(model, PreTrainedModel)
        return evaluate(
            model,
            # not the engine's own: under ZeRO-3 its forward is a collective call, and ranks have unequal numbers of batches
            loss_module=Seq2SeqLoss(model),
            tokenizer=built.prepared.tokenizer,
            tokens=built.prepared.eval,
            config=built.config,
            generation_arguments=lambda language: generation_arguments(
                model, tokenizer=built.prepared.tokenizer, target_language=language
            ),
            rank=built.ranks.rank,
            world_size=built.ranks.world_size,
            gather=built.ranks.gather,
            device=built.ranks.device,
            should_stop=should_stop,
            max_batches=max_batches,
        )


def _export_best(built: Built, *, step: int) -> None:
    built.guard.phases.enter("export")
    try:
        export_live(built, name=BEST, step=step)
    except OSError as error:  # a full disk; on rank 0 alone, which writes
        log.warning(
            "the best model, of step %d, could not be written (%s): it is made from its checkpoint at the end",
            step,
            error,
        )
        built.ranks.barrier()


def _describe(built: Built, *, command: str) -> dict[str, Any]:
    return describe_run(
        built.config,
        ranks=built.ranks,
        data={"train": built.prepared.train.report, "eval": built.prepared.eval.report},
        model=built.model,
        plan=built.plan,
        total_steps=built.total_steps,
        warnings=built.warnings,
        command=command,
    )


def _finish(
    built: Built, *, progress: Progress, control: Control, preempt: PreemptHook, best: Mapping[str, float] | None
) -> int:
    if not control.preempted:
        built.guard.phases.enter("export")
        export_live(built, name=FINAL, step=progress.step, check=True)
    built.guard.phases.enter("finish")
    if built.ranks.rank == 0:
        if best is not None and not control.preempted:
            _complete_best(built.run_dir, step=int(best["step"]))
        control.record(event_row("stop" if control.preempted else "finish", progress.step, message=control.stop_reason))
        card = write_card(built.run_dir)
        log.info("card: %s  plots: %s  model: %s", card, built.run_dir / "plots", built.run_dir / BEST)
    if control.preempted:
        # asked of all, since a signal may reach any rank
        (milliseconds,) = built.ranks.max([round(1000 * preempt.seconds_since_told())])
        log.info(
            "%s: ended %.1f s later, after the step under way and a save", control.stop_reason, milliseconds / 1000
        )
    outcome = _outcome(control, step=progress.step, attempt=built.guard.attempt)
    built.guard.report(outcome)
    built.ranks.barrier()
    assert outcome.exit_code is not None
    return outcome.exit_code


def _outcome(control: Control, *, step: int, attempt: int) -> RunOutcome:
    if control.unsaved is not None:
        log.error("%s: make room; the same command goes on from the checkpoint before", control.unsaved)
        return RunOutcome("failed", EXIT_UNSAVED, control.unsaved, step=step, attempt=attempt)
    if control.preempted:
        return RunOutcome("preempted", EXIT_PREEMPTED, control.stop_reason or "", step=step, attempt=attempt)
    return RunOutcome("finished", 0, control.stop_reason or "", step=step, attempt=attempt)


def _complete_best(run_dir: Path, *, step: int) -> None:
    """Make the best model from its checkpoint where its folder was not written, or was cut short by a kill."""
    if exported_step(run_dir / BEST) == step:
        return
    try:
        export_checkpoint(run_dir, step=step, folder=run_dir / BEST)
    except (ValueError, OSError) as error:
        log.warning("the best model, of step %d, is not in %s: %s", step, run_dir / BEST, error)


def _recorder(built: Built) -> Callable[[dict[str, Any]], None]:
    path = built.run_dir / METRICS_FILE
    pending: list[dict[str, Any]] = []

    def record(row: dict[str, Any]) -> None:
        if built.ranks.rank != 0:
            return
        pending.append(row | {"lease": built.guard.attempt})
        try:
            while pending:
                append_row(path, pending[0])
                pending.pop(0)
        except OSError as error:  # a full disk costs no rows: they wait for room
            if len(pending) == 1:
                log.warning("%s: %s; rows are kept until they can be written", path, error.strerror)

    return record


def _agree_on_finished(built: Built) -> bool:
    """Whether the run had come to its end before; its card is written again, since a kill may have come between."""
    finished = built.ranks.rank == 0 and _is_finished(built)
    if finished:
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


def _quiet_libraries() -> None:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
