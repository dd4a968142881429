"""The training loop: fetch, step, hooks. Everything that is not a step is a hook."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing

from dstrain.data.loader import Loader, StepBatch
from dstrain.data.plan import Position
from dstrain.engine.engine import Engine, StepResult
from dstrain.training.state import Control, Hook, Progress, StepInfo


def train(
    engine: Engine,
    *,
    loader: Loader,
    progress: Progress,
    total_steps: int,
    epoch_at: Callable[[Position], float],
    hooks: Sequence[Hook],
    control: Control,
) -> Progress:
    """Train from `progress` until `total_steps` or until a hook asks to stop; gives where the run ended."""
    try:
        for hook in hooks:
            hook.on_start(progress, control)
        with closing(loader.iterate_from(progress.position)) as steps:
            while progress.step < total_steps and control.stop_reason is None:
                started = time.perf_counter()
                batch = next(steps)
                result = engine.step(batch, step=progress.step + 1)
                progress = Progress(progress.step + 1, batch.plan.next_position)
                seconds = time.perf_counter() - started
                epoch = epoch_at(progress.position)
                info = _describe_step(
                    batch, result, engine, progress, total_steps=total_steps, epoch=epoch, seconds=seconds
                )
                for hook in hooks:
                    hook.on_step(info, control)
        for hook in hooks:
            hook.on_stop(progress, control)
    except BaseException as error:
        for hook in hooks:
            hook.on_error(error)
        raise
    return progress


def _describe_step(
    batch: StepBatch,
    result: StepResult,
    engine: Engine,
    progress: Progress,
    *,
    total_steps: int,
    epoch: float,
    seconds: float,
) -> StepInfo:
    return StepInfo(
        progress=progress,
        total_steps=total_steps,
        epoch=epoch,
        result=result,
        loss_scale=engine.loss_scale,
        skipped_steps=engine.skipped_steps,
        source_tokens=batch.source_tokens,
        target_tokens=batch.num_target_tokens,
        padded_source_tokens=batch.padded_source_tokens,
        padded_target_tokens=batch.padded_target_tokens,
        data_seconds=batch.seconds,
        seconds=seconds,
    )
