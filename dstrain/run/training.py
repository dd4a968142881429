"""Trains what was assembly: the hooks around the loop, and what they call."""

import logging
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from dstrain.attempt.attempt import start_attempt
from dstrain.attempt.rank_records import Drill
from dstrain.cluster.environment import ProcessInfo
from dstrain.cluster.process_group import join_ranks, named_peer_loss
from dstrain.cluster.rendezvous import Rendezvous
from dstrain.cluster.walltime import WallTime
from dstrain.config.load import dump_config
from dstrain.config.schema import RunConfig
from dstrain.data.loader import Loader
from dstrain.models.compilation import COMPILING_STEPS
from dstrain.models.families import decoder_start_id
from dstrain.models.load import quiet_transformers
from dstrain.models.save import recover_export
from dstrain.run.assemble import Assembly, assemble
from dstrain.run.finish import BEST, FINAL, finish
from dstrain.run.hooks import _build_hooks, _build_quarantine
from dstrain.run.info import build_run_info
from dstrain.run.restart import agree_on_finished, compare_with_history
from dstrain.run_folder.record import write_run_info
from dstrain.run_folder.rows import METRICS_FILE, append_row
from dstrain.training.hooks.deferred import DeferredEvaluationHook
from dstrain.training.hooks.evaluate import EvaluateHook
from dstrain.training.hooks.preempt import PreemptHook
from dstrain.training.loop import train
from dstrain.training.state import Control, event_row

KEPT_BY_ATTEMPT = ("lease", "ranks", "outcome.json")
"""What the attempt of this very start has written, when a debug run empties its folder."""

log = logging.getLogger(__name__)


@named_peer_loss()
def run(
    config: RunConfig,
    *,
    process: ProcessInfo,
    command: str,
    allowed: Iterable[str] = (),
    drill: Drill | None = None,
    debug: bool = False,
    rendezvous: Rendezvous | None = None,
    cause: str | None = None,
    allocation_end: float | None = None,
) -> int:
    """Train a recipe from its beginning or from its newest checkpoint; gives the exit code.

    Args:
        allowed: fields that may have changed since the checkpoint.
        drill: when this process is to be killed, to prove that nothing is lost.
        rendezvous: the port that the ranks have agreed on, where their launcher gave none.
        cause: why the run was started, for its history.
        allocation_end: when this process is ended from outside, in seconds since 1970.

    Raises:
        UserError: something the user can mend; the message says what and how.
    """
    quiet_transformers()
    if debug:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.autograd.set_detect_anomaly(True)
    ranks = join_ranks(process, timeout_minutes=config.machine.collective_timeout_minutes, rendezvous=rendezvous)
    walltime = WallTime(allocation_end, reserve_seconds=config.machine.reserve_seconds, now=time.time)
    num_slow_steps = 0 if config.machine.compile is False else COMPILING_STEPS
    preempt = PreemptHook(ranks=ranks, walltime=walltime, num_slow_steps=num_slow_steps)
    attempt = start_attempt(Path(config.run_dir), ranks=ranks, machine=config.machine, drill=drill)
    try:
        if debug:
            _empty_folder(Path(config.run_dir))  # a debug run begins anew
        assembly = assemble(config, attempt=attempt, allowed=allowed)
        code = (
            0
            if agree_on_finished(assembly)
            else _train(assembly, preempt=preempt, walltime=walltime, command=command, cause=cause)
        )
    except BaseException as error:
        attempt.phases.end(f"failed: {error}")  # else its neighbours take it for lost, and ask to be started again
        raise
    ranks.leave()
    attempt.close(f"ended with code {code}")
    return code


def _train(assembly: Assembly, *, preempt: PreemptHook, walltime: WallTime, command: str, cause: str | None) -> int:
    config = assembly.config
    record = _recorder(assembly)
    if assembly.ranks.rank == 0:
        compare_with_history(assembly)
        parts = assembly.run_dir / "config.yaml.tmp"
        parts.write_text(dump_config(config))
        parts.replace(assembly.run_dir / "config.yaml")
        write_run_info(assembly.run_dir, _describe(assembly, command=command))
        record(event_row("resume" if assembly.resume else "start", assembly.first_progress.step, message=cause))
        for warning in assembly.warnings:
            log.warning("%s", warning)
        for name in (BEST, FINAL):
            recover_export(assembly.run_dir / name)
    control = Control(record=record)
    loader = _build_loader(assembly)
    quarantine = _build_quarantine(assembly, loader=loader)
    hooks = _build_hooks(assembly, preempt=preempt, quarantine=quarantine, walltime=walltime)
    progress = train(
        assembly.engine,
        loader=loader,
        progress=assembly.first_progress,
        total_steps=assembly.total_steps,
        epoch_at=assembly.plan.epoch_at,
        hooks=hooks,
        control=control,
        quarantine=quarantine,
    )
    (best,) = (hook.best for hook in hooks if isinstance(hook, EvaluateHook | DeferredEvaluationHook))
    return finish(assembly, progress=progress, control=control, preempt=preempt, best=best)


def _build_loader(assembly: Assembly) -> Loader:
    return Loader(
        assembly.prepared.train,
        assembly.plan,
        rank=assembly.ranks.rank,
        world_size=assembly.ranks.world_size,
        pad_id=assembly.prepared.tokenizer.pad_token_id,
        decoder_start_id=decoder_start_id(assembly.model),
        prefetch_steps=assembly.config.machine.prefetch_steps,
        device=assembly.ranks.device,
    )


def _describe(assembly: Assembly, *, command: str) -> dict[str, Any]:
    return build_run_info(
        assembly.config,
        ranks=assembly.ranks,
        data={"train": assembly.prepared.train.report, "eval": assembly.prepared.eval.report},
        model=assembly.model,
        plan=assembly.plan,
        total_steps=assembly.total_steps,
        warnings=assembly.warnings,
        command=command,
    )


def _empty_folder(run_dir: Path) -> None:
    for path in run_dir.iterdir():
        if path.name in KEPT_BY_ATTEMPT:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _recorder(assembly: Assembly) -> Callable[[dict[str, Any]], None]:
    path = assembly.run_dir / METRICS_FILE
    pending: list[dict[str, Any]] = []

    def record(row: dict[str, Any]) -> None:
        if assembly.ranks.rank != 0:
            return
        pending.append(row | {"lease": assembly.attempt.number})
        try:
            while pending:
                append_row(path, pending[0])
                pending.pop(0)
        except OSError as error:  # a full disk costs no rows: they wait for room
            if len(pending) == 1:
                log.warning("%s: %s; rows are kept until they can be written", path, error.strerror)

    return record
