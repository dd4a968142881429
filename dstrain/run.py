"""Trains what was built: the hooks around the loop, and what they call."""

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import PreTrainedModel

from dstrain.build import Built, build
from dstrain.checkpoint.export import recover_export
from dstrain.checkpoint.manifest import CheckpointError
from dstrain.checkpoint.resume import Resume
from dstrain.checkpoint.saver import Outcome, Saver, WholeCheckpoints
from dstrain.checkpoint.state import RunState
from dstrain.checkpoint.store import carry_out, plan_pruning, sync_path
from dstrain.cluster.environment import Place
from dstrain.cluster.lease import read_claims
from dstrain.cluster.phases import Drill
from dstrain.cluster.process_group import join_ranks, named_peer_loss
from dstrain.cluster.rendezvous import Meeting
from dstrain.cluster.walltime import WallTime
from dstrain.config.load import dump_config
from dstrain.config.schema import RunConfig
from dstrain.data.loader import Loader, StepBatch
from dstrain.describe import describe_run
from dstrain.ends import BEST, FINAL, agree_on_finished, compare_with_history, finish
from dstrain.engine.engine import Fault
from dstrain.engine.faults import Finding, find_bad_rows
from dstrain.evaluation.evaluate import EvaluationResult, evaluate
from dstrain.export import export_live
from dstrain.guard import start_guard
from dstrain.models.compilation import COMPILING_STEPS
from dstrain.models.families import decoder_start_id, generation_arguments
from dstrain.models.load import quiet_transformers
from dstrain.models.loss import Seq2SeqLoss
from dstrain.prepare import locate_training_rows
from dstrain.reporting.records import load_record, write_run_info
from dstrain.reporting.rows import METRICS_FILE, append_row
from dstrain.training.hooks.checkpoint import CheckpointHook
from dstrain.training.hooks.due import DueHook, Found
from dstrain.training.hooks.evaluate import REHEARSAL_BATCHES, EvaluateHook
from dstrain.training.hooks.log import LogHook
from dstrain.training.hooks.preempt import PreemptHook
from dstrain.training.hooks.progress import ProgressHook
from dstrain.training.hooks.quarantine import Quarantine
from dstrain.training.loop import train
from dstrain.training.state import Control, Hook, Progress, event_row

KEPT_BY_GUARD = ("lease", "ranks", "outcome.json")
"""What the guard of this very start has written, when a debug run empties its folder."""

log = logging.getLogger(__name__)


@named_peer_loss()
def run(
    config: RunConfig,
    *,
    place: Place,
    command: str,
    allowed: Iterable[str] = (),
    drill: Drill | None = None,
    debug: bool = False,
    meeting: Meeting | None = None,
    cause: str | None = None,
    allocation_end: float | None = None,
) -> int:
    """Train a recipe from its beginning or from its newest checkpoint; gives the exit code.

    Args:
        allowed: fields that may have changed since the checkpoint.
        drill: when this process is to be killed, to prove that nothing is lost.
        meeting: the port that the ranks have agreed on, where their launcher gave none.
        cause: why the run was started, for its history.
        allocation_end: when this process is ended from outside, in seconds since 1970.

    Raises:
        UserError: something the user can mend; the message says what and how.
    """
    quiet_transformers()
    if debug:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.autograd.set_detect_anomaly(True)
    ranks = join_ranks(place, timeout_minutes=config.machine.collective_timeout_minutes, meeting=meeting)
    walltime = WallTime(allocation_end, reserve_seconds=config.machine.reserve_seconds, now=time.time)
    num_slow_steps = 0 if config.machine.compile is False else COMPILING_STEPS
    preempt = PreemptHook(ranks=ranks, walltime=walltime, num_slow_steps=num_slow_steps)
    guard = start_guard(Path(config.run_dir), ranks=ranks, machine=config.machine, drill=drill)
    try:
        if debug:
            _empty_folder(Path(config.run_dir))  # a debug run begins anew
        built = build(config, guard=guard, allowed=allowed)
        code = (
            0
            if agree_on_finished(built)
            else _train(built, preempt=preempt, walltime=walltime, command=command, cause=cause)
        )
    except BaseException as error:
        guard.phases.end(f"failed: {error}")  # else its neighbours take it for lost, and ask to be started again
        raise
    ranks.leave()
    guard.close(f"ended with code {code}")
    return code


def _train(built: Built, *, preempt: PreemptHook, walltime: WallTime, command: str, cause: str | None) -> int:
    config = built.config
    record = _recorder(built)
    if built.ranks.rank == 0:
        compare_with_history(built)
        parts = built.run_dir / "config.yaml.tmp"
        parts.write_text(dump_config(config))
        parts.replace(built.run_dir / "config.yaml")
        write_run_info(built.run_dir, _describe(built, command=command))
        record(event_row("resume" if built.resume else "start", built.first_progress.step, message=cause))
        for warning in built.warnings:
            log.warning("%s", warning)
        for name in (BEST, FINAL):
            recover_export(built.run_dir / name)
    control = Control(record=record)
    loader = _build_loader(built)
    quarantine = _build_quarantine(built, loader=loader)
    hooks = _build_hooks(built, preempt=preempt, quarantine=quarantine, walltime=walltime)
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
    (best,) = (hook.best for hook in hooks if isinstance(hook, EvaluateHook | DueHook))
    return finish(built, progress=progress, control=control, preempt=preempt, best=best)


def _build_loader(built: Built) -> Loader:
    return Loader(
        built.prepared.train,
        built.plan,
        rank=built.ranks.rank,
        world_size=built.ranks.world_size,
        pad_id=built.prepared.tokenizer.pad_token_id,
        decoder_start_id=decoder_start_id(built.model),
        prefetch_steps=built.config.machine.prefetch_steps,
        device=built.ranks.device,
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


def _empty_folder(run_dir: Path) -> None:
    for path in run_dir.iterdir():
        if path.name in KEPT_BY_GUARD:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


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
