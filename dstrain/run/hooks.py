"""The hooks of a run, in the order in which they are called."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from transformers import PreTrainedModel

from dstrain.checkpoint.manifest import CheckpointError
from dstrain.checkpoint.resume import Resume
from dstrain.checkpoint.saver import Outcome, Saver, WholeCheckpoints
from dstrain.checkpoint.state import RunState
from dstrain.checkpoint.store import carry_out, plan_pruning
from dstrain.cluster.walltime import WallTime
from dstrain.data.loader import Loader, StepBatch
from dstrain.engine.engine import Fault
from dstrain.engine.faults import Finding, find_bad_rows
from dstrain.evaluation.evaluate import EvaluationResult, evaluate
from dstrain.models.families import generation_arguments
from dstrain.models.loss import Seq2SeqLoss
from dstrain.run.assemble import Assembly
from dstrain.run.export import export_live
from dstrain.run.finish import BEST
from dstrain.run.prepare import locate_training_rows
from dstrain.run_folder.atomic import sync_path
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.record import load_record
from dstrain.run_folder.rows import METRICS_FILE
from dstrain.training.hooks.checkpoint import CheckpointHook
from dstrain.training.hooks.deferred import DeferredEvaluationHook, Found
from dstrain.training.hooks.evaluate import REHEARSAL_BATCHES, EvaluateHook
from dstrain.training.hooks.log import LogHook
from dstrain.training.hooks.preempt import PreemptHook
from dstrain.training.hooks.progress import ProgressHook
from dstrain.training.hooks.quarantine import Quarantine
from dstrain.training.state import Hook, Progress

log = logging.getLogger(__name__)


def _build_quarantine(assembly: Assembly, *, loader: Loader) -> Quarantine:
    config, ranks, tokenizer = assembly.config, assembly.ranks, assembly.prepared.tokenizer

    def find_rows(batch: StepBatch, fault: Fault, step: int) -> Finding:
        assembly.attempt.phases.enter("search", step=step - 1)
        return find_bad_rows(assembly.engine, batch, fault=fault, step=step, config=config, ranks=ranks)

    return Quarantine(
        config=config,
        ranks=ranks,
        find_rows=find_rows,
        locate_rows=lambda rows: locate_training_rows(rows, config=config, tokenizer=tokenizer),
        exclude=loader.exclude,
    )


def _build_hooks(assembly: Assembly, *, preempt: PreemptHook, quarantine: Quarantine, walltime: WallTime) -> list[Hook]:
    """In the order in which they are called after every step.

    Whoever may stop the run comes first; the checkpoint comes after the log, because it claims everything up to its step,
    the log's row included.
    """
    config, ranks = assembly.config, assembly.ranks

    def should_stop() -> bool:
        assembly.attempt.phases.mark_progress()
        return preempt.should_stop(is_told=assembly.attempt.is_stop_requested, tell=assembly.attempt.request_stop)

    evaluation = _build_evaluation(assembly, preempt=preempt, walltime=walltime, should_stop=should_stop)
    logging_hook = LogHook(config=config, ranks=ranks, total_steps=assembly.total_steps, console=Console(stderr=True))
    stateful: list[Hook] = [preempt, quarantine, evaluation, logging_hook]
    saver = _build_saver(assembly, evaluation=evaluation)

    def save(progress: Progress) -> Sequence[Outcome]:
        assembly.attempt.phases.enter("wait for save")
        before = saver.finish()
        assembly.attempt.phases.enter("snapshot", step=progress.step)
        scores = evaluation.latest[1] if evaluation.latest and evaluation.latest[0] == progress.step else None
        saver.save(_run_state(assembly, progress=progress, hooks=stateful), scores=scores)
        return before

    if assembly.resume is not None:
        _load_hooks(stateful, resume=assembly.resume)
    checkpoint = CheckpointHook(settings=config.checkpoint, walltime=walltime, save=save, saves=saver)
    return [*stateful, checkpoint, ProgressHook(enter=assembly.attempt.phases.enter)]


def _build_evaluation(
    assembly: Assembly, *, preempt: PreemptHook, walltime: WallTime, should_stop: Callable[[], bool]
) -> EvaluateHook | DeferredEvaluationHook:
    config, ranks = assembly.config, assembly.ranks

    def score(max_batches: int | None) -> EvaluationResult | None:
        return _evaluate(assembly, max_batches=max_batches, should_stop=should_stop)

    if config.machine.evaluation_job is None:
        return EvaluateHook(
            config=config,
            ranks=ranks,
            walltime=walltime,
            evaluate=score,
            export_best=lambda step: _export_best(assembly, step=step),
            agree_on_stop=preempt.agree,
        )
    return DeferredEvaluationHook(
        config=config,
        ranks=ranks,
        rehearse=lambda: score(REHEARSAL_BATCHES),
        look_up=lambda: _look_up(assembly.run_dir),
    )


def _look_up(run_dir: Path) -> Found:
    """What other jobs have scored so far, and what is still due."""
    record = load_record(run_dir)
    metric, best = record.config.best_metric, record.best
    return (
        {"step": best.step, "value": best.scores[metric]} if best else None,
        [row.step for row in record.pending_rows],
    )


def _load_hooks(hooks: Sequence[Hook], *, resume: Resume) -> None:
    for hook in hooks:
        try:
            hook.load_state(resume.state.hooks[hook.name])
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{resume.directory}: its state of `{hook.name}` is not what this version reads ({error!r}): go on with the "
                "version that saved it, or export its weights and start a new run"
            ) from error


def _build_saver(assembly: Assembly, *, evaluation: EvaluateHook | DeferredEvaluationHook) -> Saver:
    is_whole = WholeCheckpoints()
    settings, claims = assembly.config.checkpoint, read_claims(assembly.run_dir)

    def on_stage(phase: str) -> None:
        assembly.attempt.phases.enter(phase, track="save")

    def prune() -> None:
        pruning = plan_pruning(
            assembly.checkpoints,
            claims=claims,
            keep_last=settings.keep_last,
            keep_steps=evaluation.kept_steps,
            keep_weights_every=settings.keep_weights_every_steps,
            is_whole=is_whole,
        )
        carry_out(pruning, on_stage=on_stage)

    return Saver(
        assembly.checkpoints,
        engine=assembly.engine,
        identity=assembly.identity,
        ranks=assembly.ranks.beside(),
        check_lease=assembly.attempt.check_lease,
        sync_records=lambda: sync_path(assembly.run_dir / METRICS_FILE),
        prune=prune,
        on_stage=on_stage,
    )


def _run_state(assembly: Assembly, *, progress: Progress, hooks: Sequence[Hook]) -> RunState:
    return RunState(
        step=progress.step,
        epoch=progress.position.epoch,
        step_in_epoch=progress.position.step,
        cut=asdict(assembly.plan.cut),
        data=assembly.prepared.fingerprints,
        hooks={hook.name: hook.state() for hook in hooks},
    )


def _evaluate(
    assembly: Assembly, *, max_batches: int | None, should_stop: Callable[[], bool]
) -> EvaluationResult | None:
    assembly.attempt.phases.enter("evaluation")
    with assembly.engine.gathered() as model:
        assert isinstance(model, PreTrainedModel)
        return evaluate(
            model,
            # not the engine's own: under ZeRO-3 its forward is a collective call, and ranks have unequal numbers of batches
            loss_module=Seq2SeqLoss(model),
            tokenizer=assembly.prepared.tokenizer,
            tokens=assembly.prepared.eval,
            config=assembly.config,
            generation_arguments=lambda language: generation_arguments(
                model, tokenizer=assembly.prepared.tokenizer, target_language=language
            ),
            rank=assembly.ranks.rank,
            world_size=assembly.ranks.world_size,
            gather=assembly.ranks.gather,
            device=assembly.ranks.device,
            should_stop=should_stop,
            max_batches=max_batches,
        )


def _export_best(assembly: Assembly, *, step: int) -> None:
    assembly.attempt.phases.enter("export")
    try:
        export_live(assembly, name=BEST, step=step)
    except OSError as error:  # a full disk; on rank 0 alone, which writes
        log.warning(
            "the best model, of step %d, cannot be written (%s): its checkpoint will serve, if that can be saved",
            step,
            error,
        )
        assembly.ranks.barrier()
