"""Trains what was built: the hooks around the loop, and what they call."""

import logging
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from dstrain.attempt.attempt import start_guard
from dstrain.attempt.rank_records import Drill
from dstrain.cluster.environment import Place
from dstrain.cluster.process_group import join_ranks, named_peer_loss
from dstrain.cluster.rendezvous import Meeting
from dstrain.cluster.walltime import WallTime
from dstrain.config.load import dump_config
from dstrain.config.schema import RunConfig
from dstrain.data.loader import Loader
from dstrain.models.compilation import COMPILING_STEPS
from dstrain.models.families import decoder_start_id
from dstrain.models.load import quiet_transformers
from dstrain.models.save import recover_export
from dstrain.run.assemble import Built, build
from dstrain.run.finish import BEST, FINAL, finish
from dstrain.run.hooks import _build_hooks, _build_quarantine
from dstrain.run.info import describe_run
from dstrain.run.restart import agree_on_finished, compare_with_history
from dstrain.run_folder.record import write_run_info
from dstrain.run_folder.rows import METRICS_FILE, append_row
from dstrain.training.hooks.deferred import DueHook
from dstrain.training.hooks.evaluate import EvaluateHook
from dstrain.training.hooks.preempt import PreemptHook
from dstrain.training.loop import train
from dstrain.training.state import Control, event_row

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
