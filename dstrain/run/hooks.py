"""Builds the hooks of a run with the functions they call: saving, evaluating, searching for bad rows."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

from dstrain.checkpoint.manifest import CheckpointError
from dstrain.checkpoint.resume import Resume
from dstrain.checkpoint.saver import SaveOutcome, Saver, ValidCheckpoints
from dstrain.checkpoint.state import RunState
from dstrain.checkpoint.store import carry_out, plan_pruning
from dstrain.cluster.console import can_redraw
from dstrain.cluster.walltime import WallTime
from dstrain.data.loader import StepBatch
from dstrain.engine.engine import Fault
from dstrain.engine.faults import FaultCause, find_bad_rows
from dstrain.evaluation.evaluate import evaluate
from dstrain.evaluation.external import rehearse_external
from dstrain.evaluation.result import EvaluationResult
from dstrain.run.assemble import Assembly
from dstrain.run.export import export_live
from dstrain.run.external_scores import external_scores, find_evaluated
from dstrain.run.prepare import locate_training_rows
from dstrain.run_folder.atomic import sync_path
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.layout import BEST, RunFolder
from dstrain.run_folder.record import load_record
from dstrain.training.hooks.checkpoint import CheckpointHook
from dstrain.training.hooks.deferred import DeferredEvaluationHook, ScoredElsewhere
from dstrain.training.hooks.evaluate import REHEARSAL_BATCHES, EvaluateHook, EvaluationHook
from dstrain.training.hooks.external import ExternalHook
from dstrain.training.hooks.log import LogHook
from dstrain.training.hooks.preempt import PreemptHook
from dstrain.training.hooks.progress import ProgressHook
from dstrain.training.hooks.quarantine import Quarantine
from dstrain.training.state import Hook, Progress

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Hooks:
    """Everything that happens before the first step, after every step and after the last."""

    preempt: PreemptHook
    quarantine: Quarantine
    evaluation: EvaluationHook
    external: ExternalHook
    log: LogHook
    checkpoint: CheckpointHook
    progress: ProgressHook

    @property
    def in_order(self) -> tuple[Hook, ...]:
        """The order in which they are called after every step.

        Hooks that can stop the run come first. The checkpoint comes after the log, because the state it saves must include
        the row of the log at this step.
        """
        return (
            self.preempt,
            self.quarantine,
            self.evaluation,
            self.external,
            self.log,
            self.checkpoint,
            self.progress,
        )


def build_hooks(
    assembly: Assembly, *, preempt: PreemptHook, exclude: Callable[[Iterable[int]], None], walltime: WallTime
) -> Hooks:
    """The hooks, with the state of the checkpoint that the run resumes from; `exclude` removes rows from the data."""
    config, ranks = assembly.config, assembly.ranks
    quarantine = _build_quarantine(assembly, exclude=exclude)
    evaluation = _build_evaluation(assembly, preempt=preempt, walltime=walltime)
    logging_hook = LogHook(config=config, ranks=ranks, total_steps=assembly.total_steps, is_terminal=can_redraw())
    stateful: tuple[Hook, ...] = (preempt, quarantine, evaluation, logging_hook)
    if assembly.resume is not None:
        assembly.changes.extend(_restore_hooks(stateful, resume=assembly.resume, attempt=assembly.attempt.number))
    saver = _build_saver(assembly, evaluation=evaluation)

    def save(progress: Progress) -> Sequence[SaveOutcome]:
        assembly.attempt.phases.enter("wait for save")
        before = saver.finish()
        assembly.attempt.phases.enter("snapshot", step=progress.step)
        saver.save(
            _build_run_state(assembly, progress=progress, hooks=stateful), scores=evaluation.scores_of(progress.step)
        )
        return before

    checkpoint = CheckpointHook(
        settings=config.checkpoint,
        ranks=ranks,
        walltime=walltime,
        save_clock=preempt.save_clock,
        save=save,
        saves=saver,
    )
    progress = ProgressHook(enter=assembly.attempt.phases.enter)
    external = _build_external(assembly, evaluation=evaluation)
    return Hooks(preempt, quarantine, evaluation, external, logging_hook, checkpoint, progress)


def _build_quarantine(assembly: Assembly, *, exclude: Callable[[Iterable[int]], None]) -> Quarantine:
    config, ranks, tokenizer = assembly.config, assembly.ranks, assembly.prepared.tokenizer

    def find_rows(batch: StepBatch, fault: Fault, step: int) -> FaultCause:
        assembly.attempt.phases.enter("search", step=step - 1)
        return find_bad_rows(assembly.engine, batch, fault=fault, step=step, config=config, ranks=ranks)

    return Quarantine(
        config=config,
        ranks=ranks,
        find_rows=find_rows,
        locate_rows=lambda rows: locate_training_rows(
            rows, config=config, tokenizer=tokenizer, tokens=assembly.prepared.train
        ),
        exclude=exclude,
    )


def _build_evaluation(assembly: Assembly, *, preempt: PreemptHook, walltime: WallTime) -> EvaluationHook:
    config, ranks, attempt = assembly.config, assembly.ranks, assembly.attempt

    def should_stop() -> bool:
        attempt.phases.mark_progress()
        return preempt.should_stop(is_stop_requested=attempt.is_stop_requested, request_stop=attempt.request_stop)

    def score(max_batches: int | None) -> EvaluationResult | None:
        attempt.phases.enter("evaluation")
        with assembly.engine.gathered() as model:
            result = evaluate(
                model,
                tokens=assembly.prepared.eval,
                tokenizer=assembly.prepared.tokenizer,
                config=config,
                ranks=ranks,
                vocabulary=assembly.prepared.vocabulary,
                should_stop=should_stop,
                max_batches=max_batches,
            )
        if max_batches is not None and result is not None and config.evaluation.external:
            rehearse_external(config.evaluation.external, texts=result.texts, beat=attempt.phases.mark_progress)
        return result

    if config.machine.evaluation_job is not None:
        return DeferredEvaluationHook(
            config=config,
            ranks=ranks,
            rehearse=lambda: score(REHEARSAL_BATCHES),
            find_scored=lambda: _find_scored(assembly.folder),
        )
    return EvaluateHook(
        config=config,
        ranks=ranks,
        walltime=walltime,
        save_clock=preempt.save_clock,
        evaluate=score,
        export_best=lambda step: _export_best(assembly, step=step),
        agree_on_stop=preempt.agree,
    )


def _build_external(assembly: Assembly, *, evaluation: EvaluationHook) -> ExternalHook:
    is_here = assembly.ranks.rank == 0 and assembly.config.machine.evaluation_job is None
    return ExternalHook(
        external_scores(assembly.config, folder=assembly.folder) if is_here else None,
        find_evaluated=lambda: find_evaluated(assembly.folder),
        was_evaluated=lambda step: evaluation.scores_of(step) is not None,
    )


def _find_scored(folder: RunFolder) -> ScoredElsewhere:
    record = load_record(folder.path)
    best = record.best
    return ScoredElsewhere(
        best={"step": best.step, "scores": dict(best.scores)} if best else None,
        pending_steps=[row.step for row in record.pending_rows],
    )


def _export_best(assembly: Assembly, *, step: int) -> None:
    assembly.attempt.phases.enter("export")
    try:
        export_live(assembly, name=BEST, step=step)
    except OSError as error:  # a full disk, on rank 0 alone
        log.warning(
            "the best model, of step %d, cannot be written (%s): it is exported at the end if its checkpoint can be saved",
            step,
            error,
        )
        assembly.ranks.barrier()


def _build_saver(assembly: Assembly, *, evaluation: EvaluationHook) -> Saver:
    is_valid = ValidCheckpoints()
    folder, settings = assembly.folder, assembly.config.checkpoint
    claims = read_claims(folder.path)

    def on_stage(phase: str) -> None:
        assembly.attempt.phases.enter(phase, track="save")

    def prune() -> None:
        pruning = plan_pruning(
            folder.checkpoints,
            claims=claims,
            keep_last=settings.keep_last,
            keep_steps=evaluation.kept_steps,
            keep_weights_every=settings.keep_weights_every_steps,
            is_valid=is_valid,
        )
        carry_out(pruning, on_stage=on_stage)

    return Saver(
        folder.checkpoints,
        engine=assembly.engine,
        identity=assembly.identity,
        ranks=assembly.ranks.beside(),
        check_lease=assembly.attempt.check_lease,
        sync_records=lambda: sync_path(folder.metrics),
        prune=prune,
        on_stage=on_stage,
    )


def _build_run_state(assembly: Assembly, *, progress: Progress, hooks: Sequence[Hook]) -> RunState:
    place = assembly.place
    return RunState(
        step=progress.step,
        epoch=progress.position.epoch,
        step_in_epoch=progress.position.step,
        epoch_parts=place.epoch_parts if progress.position.epoch == place.position.epoch else (),
        cut=asdict(assembly.plan.cut),
        data=assembly.prepared.fingerprints,
        base=assembly.base,
        hooks={hook.name: hook.state() for hook in hooks},
    )


def _restore_hooks(hooks: Sequence[Hook], *, resume: Resume, attempt: int) -> list[str]:
    """Restore the state of the hooks, but for what is reset; returns what that is, in sentences."""
    said = []
    for hook in hooks:
        try:
            hook.load_state(resume.state.hooks[hook.name])
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise CheckpointError(
                f"{resume.directory}: this version cannot read its state of `{hook.name}` ({error!r}): resume with the version "
                "that saved it, or export its weights and start a new run"
            ) from error
        said += hook.reset(resume.parts, attempt=attempt)
    return said
