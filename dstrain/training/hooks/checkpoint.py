"""When to save the run's state, and what to keep. Where bytes go is the store's business."""

import logging
from collections.abc import Callable
from typing import Any

from dstrain.config.machine import Checkpoint
from dstrain.training.state import Control, Hook, Progress, StepInfo

log = logging.getLogger(__name__)


class CheckpointHook(Hook):
    """Saves at a cadence, when asked to, and at the end; then prunes."""

    name = "checkpoint"

    def __init__(
        self,
        *,
        settings: Checkpoint,
        save: Callable[[Progress], Any],
        prune: Callable[[], Any],
    ) -> None:
        self._settings = settings
        self._save = save
        self._prune = prune

    def on_step(self, info: StepInfo, control: Control) -> None:
        every = self._settings.every_steps
        due = every is not None and info.step % every == 0
        if due or control.checkpoint_requested or control.stop_reason is not None or info.is_last:
            control.checkpoint_requested = False
            self._save(info.progress)
            self._prune()
