"""Steps and configurations without an engine; the tests of this folder import it by name."""

from typing import Any

import torch

from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from dstrain.cluster.walltime import WallTime
from dstrain.data.plan import Position
from dstrain.engine.engine import StepResult
from dstrain.run_folder.rows import as_json
from dstrain.training.save_clock import SaveClock
from dstrain.training.state import Control, Progress, StepInfo


def alone() -> Ranks:
    """The only rank of a run."""
    return Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None)


def endless() -> WallTime:
    """The wall time of a machine without a limit."""
    return WallTime(None, reserve_seconds=60.0, now=lambda: 0.0)


class Watch:
    """A clock that a test turns, and the saves by time that follow it."""

    def __init__(self, every_minutes: float) -> None:
        self.seconds = 0.0
        self.save_clock = SaveClock(every_minutes, now=lambda: self.seconds)
        self.save_clock.start()

    def save(self, *, standing_seconds: float = 0.0) -> None:
        """A save that training waits for so long."""
        self.save_clock.begin_save()
        self.seconds += standing_seconds
        self.save_clock.end_save()


def build_step(step: int, *, total_steps: int = 100, loss_sum: float = 0.0, **changes: Any) -> StepInfo:
    """A step of 10 target tokens and a tenth of an epoch."""
    values: dict[str, Any] = {
        "progress": Progress(step, Position(0, step)),
        "total_steps": total_steps,
        "epoch": step / 10,
        "result": StepResult(torch.tensor(loss_sum), 0.5, 1e-3, True),
        "loss_scale": None,
        "skipped_steps": 0,
        "target_tokens": 10,
        "source_tokens": 8,
        "padded_source_tokens": 16,
        "padded_target_tokens": 12,
        "data_seconds": 0.25,
        "seconds": 2.0,
    }
    return StepInfo(**values | changes)


class Recorder:
    """A control that keeps what is recorded."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.control = Control(record=lambda row: self.rows.append(as_json(row)))
