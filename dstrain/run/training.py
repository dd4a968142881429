"""One attempt at a run, from joining the ranks to the exit code."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dstrain.attempt.attempt import Attempt, start_attempt
from dstrain.cluster.device_errors import named_device_errors
from dstrain.cluster.process_group import join_ranks
from dstrain.cluster.walltime import WallTime
from dstrain.config.load import dump_config
from dstrain.config.schema import RunConfig
from dstrain.data.loader import Loader
from dstrain.models.compilation import COMPILING_STEPS
from dstrain.models.families import decoder_start_id, is_experiment
from dstrain.models.load import quiet_transformers
from dstrain.run.agreement import check_same_start
from dstrain.run.assemble import Assembly, assemble, check_model
from dstrain.run.autotune import resolve_machine
from dstrain.run.base_model import share_base
from dstrain.run.finish import finish
from dstrain.run.hooks import build_hooks
from dstrain.run.info import build_run_info
from dstrain.run.launch import Launch
from dstrain.run.prepare import Prepared, list_bad_rows, prepare
from dstrain.run.restart import agree_on_finished, agree_on_spelling, compare_with_history, find_start
from dstrain.run.stage import settle_stage
from dstrain.run_folder.atomic import recover_folder, write_file
from dstrain.run_folder.audit import write_audit
from dstrain.run_folder.layout import MODELS, RunFolder
from dstrain.run_folder.outcome import mark_unwritten
from dstrain.run_folder.ownership import empty_run_folder
from dstrain.run_folder.record import write_run_info
from dstrain.run_folder.rows import Row, append_row, as_json
from dstrain.tracking.backends import wanted_trackers
from dstrain.tracking.beside import END_SECONDS, HURRY_SECONDS, Followers
from dstrain.training.hooks.preempt import PreemptHook
from dstrain.training.loop import train
from dstrain.training.save_clock import SaveClock
from dstrain.training.state import Control, new_event

log = logging.getLogger(__name__)


def run(config: RunConfig, *, launch: Launch) -> int:
    """Train a recipe from its beginning or from its newest checkpoint; returns the exit code.

    Raises:
        UserError: something that the user can correct.
    """
    quiet_transformers()
    if launch.whole is not None:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.autograd.set_detect_anomaly(True)
    machine, folder = config.machine, RunFolder(Path(config.run_dir))
    walltime = WallTime(launch.allocation_end, reserve_seconds=machine.reserve_seconds, now=time.time)
    with named_device_errors(lambda: False):
        ranks = join_ranks(
            launch.process,
            timeout_minutes=machine.collective_timeout_minutes,
            rendezvous=launch.rendezvous,
            device=machine.device,
        )
        save_clock = SaveClock(config.checkpoint.every_minutes)
        preempt = PreemptHook(ranks=ranks, walltime=walltime, save_clock=save_clock)
        check_same_start(config, options=launch.options, ranks=ranks)
        attempt = start_attempt(folder.path, ranks=ranks, machine=machine, drill=launch.drill)
        attempt.catch_signals()
    with named_device_errors(lambda: attempt.phases.has_trained):
        try:
            if launch.whole is not None:
                # what earlier attempts left, but not what this attempt has written already
                empty_run_folder(folder, keep=(folder.claims, folder.rank_records, folder.outcome))
                attempt.begin()
            code = _run_attempt(config, attempt=attempt, launch=launch, preempt=preempt, walltime=walltime)
        except BaseException as error:
            # otherwise its peers consider it lost and exit with the code for a restart
            attempt.phases.end(f"failed: {error}")
            raise
        ranks.leave()
        attempt.close(f"ended with code {code}")
    return code


def _run_attempt(
    config: RunConfig, *, attempt: Attempt, launch: Launch, preempt: PreemptHook, walltime: WallTime
) -> int:
    share_base(config, ranks=attempt.ranks, phases=attempt.phases)
    check_model(config, ranks=attempt.ranks)
    # before the data are read, which may take hours
    found = find_start(config, attempt=attempt, allow_changed=launch.allow_changed)
    config = agree_on_spelling(config, found=found, ranks=attempt.ranks)
    kept = found.state.data if found else {}
    prepared = prepare(
        config,
        ranks=attempt.ranks,
        whole=launch.whole,
        kept_tokenizer=kept.get("tokenizer"),
        kept_vocabulary=kept.get("vocabulary"),
        phases=attempt.phases,
    )
    config = settle_stage(config, prepared=prepared, ranks=attempt.ranks)
    # the configuration is final from here on
    config = resolve_machine(config, prepared=prepared, ranks=attempt.ranks)
    assembly = assemble(config, prepared=prepared, attempt=attempt, found=found, allow_changed=launch.allow_changed)
    if agree_on_finished(assembly):
        return 0
    return _train(assembly, launch=launch, preempt=preempt, walltime=walltime)


def _train(assembly: Assembly, *, launch: Launch, preempt: PreemptHook, walltime: WallTime) -> int:
    record, write_waiting = _build_recorder(assembly)
    if assembly.ranks.rank == 0:
        compare_with_history(assembly)
    if assembly.config.machine.compile:
        preempt.ignore_durations(num_steps=COMPILING_STEPS)
    control = Control(record=record)
    loader = _build_loader(assembly)
    hooks = build_hooks(assembly, preempt=preempt, exclude=loader.exclude, walltime=walltime)
    if assembly.ranks.rank == 0:
        _write_beginning(assembly, launch=launch, record=record, scores_since=hooks.evaluation.scores_since)
    followers = _start_followers(assembly)
    patience = HURRY_SECONDS
    try:
        progress = train(
            assembly.engine,
            loader=loader,
            progress=assembly.first_progress,
            total_steps=assembly.total_steps,
            epoch_at=assembly.plan.epoch_at,
            hooks=hooks.in_order,
            control=control,
            quarantine=hooks.quarantine,
        )
        code = finish(assembly, progress=progress, control=control, hooks=hooks)
        if code == 0:
            patience = END_SECONDS
        return code
    finally:
        hooks.external.close()
        write_waiting()  # what did not fit on the disk, such as a model, has been removed again
        followers.close(seconds=patience)


def _write_beginning(assembly: Assembly, *, launch: Launch, record: Callable[[Row], None], scores_since: int) -> None:
    """Write config.yaml, run.json, the lists of bad rows and the first event of an attempt; on rank 0 only."""
    folder, warnings = assembly.folder, [*assembly.changes, *assembly.warnings]
    assembly.attempt.begin()
    write_file(folder.config, dump_config(assembly.config), durable=True)
    info = build_run_info(
        assembly.config,
        ranks=assembly.ranks,
        data=assembly.prepared.reports,
        vocabulary=_count_ids(assembly.prepared),
        model=assembly.model,
        is_experiment=is_experiment(assembly.model.config),
        num_exported=assembly.num_exported,
        plan=assembly.plan,
        total_steps=assembly.total_steps,
        warnings=warnings,
        command=launch.command,
    )
    write_run_info(folder.path, info)
    if (audit := assembly.prepared.audit) is not None:
        write_audit(audit, path=folder.audit)
    for tokens, split in ((assembly.prepared.train, "train"), (assembly.prepared.eval, "eval")):
        list_bad_rows(tokens.folder, path=folder.bad_rows(split))
    record(
        new_event(
            "resume" if assembly.resume else "start",
            assembly.first_progress.step,
            message=launch.cause,
            changes=tuple(assembly.changes),
            scores_since=scores_since,
        )
    )
    for warning in warnings:
        log.warning("%s", warning)
    for name in MODELS:
        recover_folder(folder.model(name))


def _start_followers(assembly: Assembly) -> Followers:
    """The processes that show the run in trackers; on rank 0 only. They read the files of the run folder, which exist now."""
    names = wanted_trackers(assembly.config) if assembly.ranks.rank == 0 else ()
    return Followers(names, run_dir=assembly.folder.path)


def _count_ids(prepared: Prepared) -> dict[str, int]:
    """How many token ids are trained, and of how many; empty if all are."""
    vocabulary = prepared.vocabulary
    if vocabulary.is_whole:
        return {}
    return {"trained_ids": len(vocabulary), "num_ids": prepared.tokenizer.vocabulary_size}


def _build_loader(assembly: Assembly) -> Loader:
    return Loader(
        assembly.prepared.train,
        assembly.plan,
        rank=assembly.ranks.rank,
        world_size=assembly.ranks.world_size,
        pad_id=assembly.prepared.vocabulary.row(assembly.prepared.tokenizer.pad_token_id),
        decoder_start_id=decoder_start_id(assembly.model),
        vocabulary=assembly.prepared.vocabulary,
        prefetch_steps=assembly.config.machine.prefetch_steps,
        device=assembly.ranks.device,
    )


def _build_recorder(assembly: Assembly) -> tuple[Callable[[Row], None], Callable[[], None]]:
    """Two functions: one appends a row to metrics.jsonl on rank 0 and does nothing on the others, the other tries again.

    No row may be lost on a full disk: it waits in memory. That rows wait is kept in the room that the attempt has reserved,
    so that reports know what is missing if it ends before they can be written.
    """
    path, number = assembly.folder.metrics, assembly.attempt.number
    waiting: list[dict[str, Any]] = []
    missing: list[int] = []

    def mark(step: int | None) -> None:
        missing[:] = [] if step is None else [step]
        mark_unwritten(assembly.folder.path, attempt=number, step=step)

    def write_waiting() -> None:
        try:
            while waiting:
                append_row(path, waiting[0])
                waiting.pop(0)
        except OSError as error:
            if not missing:
                log.warning("%s: %s; rows are kept in memory until they can be written", path, error.strerror)
            if missing != [waiting[0]["step"]]:
                mark(waiting[0]["step"])
        else:
            if missing:
                mark(None)

    def record(row: Row) -> None:
        if assembly.ranks.rank == 0:
            waiting.append(as_json(row) | {"lease": number})
            write_waiting()

    return record, write_waiting
