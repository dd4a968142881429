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
from dstrain.run.assemble import Built
from dstrain.run.export import export_live
from dstrain.run.finish import BEST
from dstrain.run.prepare import locate_training_rows
from dstrain.run_folder.atomic import sync_path
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.record import load_record
from dstrain.run_folder.rows import METRICS_FILE
from dstrain.training.hooks.checkpoint import CheckpointHook
from dstrain.training.hooks.deferred import DueHook, Found
from dstrain.training.hooks.evaluate import REHEARSAL_BATCHES, EvaluateHook
from dstrain.training.hooks.log import LogHook
from dstrain.training.hooks.preempt import PreemptHook
from dstrain.training.hooks.progress import ProgressHook
from dstrain.training.hooks.quarantine import Quarantine
from dstrain.training.state import Hook, Progress

log = logging.getLogger(__name__)


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


def _build_hooks(built: Built, *, preempt: PreemptHook, quarantine: Quarantine, walltime: WallTime) -> list[Hook]:
    """In the order in which they are called after every step.

    Whoever may stop the run comes first; the checkpoint comes after the log, because it claims everything up to its step,
    the log's row included.
    """
    config, ranks = built.config, built.ranks

    def should_stop() -> bool:
        built.guard.phases.beat()
        return preempt.should_stop(is_told=built.guard.is_told_to_stop, tell=built.guard.tell_to_stop)

    evaluation = _build_evaluation(built, preempt=preempt, walltime=walltime, should_stop=should_stop)
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
    checkpoint = CheckpointHook(settings=config.checkpoint, walltime=walltime, save=save, saves=saver)
    return [*stateful, checkpoint, ProgressHook(enter=built.guard.phases.enter)]


def _build_evaluation(
    built: Built, *, preempt: PreemptHook, walltime: WallTime, should_stop: Callable[[], bool]
) -> EvaluateHook | DueHook:
    config, ranks = built.config, built.ranks

    def score(max_batches: int | None) -> EvaluationResult | None:
        return _evaluate(built, max_batches=max_batches, should_stop=should_stop)

    if config.machine.evaluation_job is None:
        return EvaluateHook(
            config=config,
            ranks=ranks,
            walltime=walltime,
            evaluate=score,
            export_best=lambda step: _export_best(built, step=step),
            agree_on_stop=preempt.agree,
        )
    return DueHook(
        config=config,
        ranks=ranks,
        rehearse=lambda: score(REHEARSAL_BATCHES),
        look_up=lambda: _look_up(built.run_dir),
    )


def _look_up(run_dir: Path) -> Found:
    """What other jobs have scored so far, and what is still due."""
    record = load_record(run_dir)
    metric, best = record.config.best_metric, record.best
    return (
        {"step": best.step, "value": best.scores[metric]} if best else None,
        [row.step for row in record.due_rows],
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


def _build_saver(built: Built, *, evaluation: EvaluateHook | DueHook) -> Saver:
    is_whole = WholeCheckpoints()
    settings, claims = built.config.checkpoint, read_claims(built.run_dir)

    def reach(phase: str) -> None:
        built.guard.phases.enter(phase, track="save")

    def prune() -> None:
        pruning = plan_pruning(
            built.checkpoints,
            claims=claims,
            keep_last=settings.keep_last,
            keep_steps=evaluation.kept_steps,
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
            "the best model, of step %d, cannot be written (%s): its checkpoint will serve, if that can be saved",
            step,
            error,
        )
        built.ranks.barrier()
