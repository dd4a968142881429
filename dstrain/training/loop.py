"""The training loop: fetch a batch, take a step, call the hooks. Everything else is a hook."""

import time
from collections.abc import Callable, Sequence

from dstrain.data.loader import Loader
from dstrain.data.plan import Position
from dstrain.engine.engine import Engine
from dstrain.training.hooks.quarantine import Quarantine
from dstrain.training.state import Control, Hook, Progress, describe_step


def train(
    engine: Engine,
    *,
    loader: Loader,
    progress: Progress,
    total_steps: int,
    epoch_at: Callable[[Position], float],
    hooks: Sequence[Hook],
    control: Control,
    quarantine: Quarantine,
) -> Progress:
    """Train from `progress` to `total_steps`, or until a hook requests a stop; returns where training ended.

    A step that the engine refuses is repeated without the rows that `quarantine` sets aside.

    Raises:
        TrainingFault: no row causes the fault, or too many do.
    """
    try:
        for hook in hooks:
            hook.on_start(progress, control)
        steps = loader.iterate_from(progress.position)
        try:
            while progress.step < total_steps and control.stop_reason is None:
                started = time.perf_counter()
                batch = next(steps)
                result = engine.step(batch, step=progress.step + 1, loss_limit=quarantine.loss_limit)
                if result.fault is not None:
                    quarantine.set_aside(batch, fault=result.fault, step=progress.step + 1)
                    steps.close()  # its prefetched steps still contain these rows
                    steps = loader.iterate_from(progress.position)
                    continue
                progress = Progress(progress.step + 1, batch.plan.next_position)
                seconds = time.perf_counter() - started
                epoch = epoch_at(progress.position)
                info = describe_step(
                    batch, result, engine, progress, total_steps=total_steps, epoch=epoch, seconds=seconds
                )
                for hook in hooks:
                    hook.on_step(info, control)
        finally:
            steps.close()
        for hook in hooks:
            hook.on_stop(progress, control)
    except BaseException as error:
        for hook in hooks:
            hook.on_error(error)
        raise
    return progress
