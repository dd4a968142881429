"""The values that pass between the loop and its hooks."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dstrain.checkpoint.changes import Part
from dstrain.data.loader import StepBatch
from dstrain.data.plan import Position
from dstrain.engine.engine import Engine, StepResult
from dstrain.run_folder.rows import Event, EventRow, Row


@dataclass(frozen=True, slots=True)
class Progress:
    """The position of a run between two steps: steps trained, not steps fetched."""

    step: int
    position: Position


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One optimizer step, as hooks see it. Token counts are of the whole step, over all ranks."""

    progress: Progress
    """After the step."""
    total_steps: int
    epoch: float
    result: StepResult
    loss_scale: float | None
    skipped_steps: int
    target_tokens: int
    source_tokens: int
    padded_source_tokens: int
    padded_target_tokens: int
    data_seconds: float
    """Seconds this rank waited for its batch."""
    seconds: float
    """Seconds the step took, with the wait but without hooks."""

    @property
    def step(self) -> int:
        return self.progress.step

    @property
    def is_last(self) -> bool:
        return self.step >= self.total_steps


def describe_step(
    batch: StepBatch,
    result: StepResult,
    engine: Engine,
    progress: Progress,
    *,
    total_steps: int,
    epoch: float,
    seconds: float,
) -> StepInfo:
    """The StepInfo of a step for the hooks; `progress` and `epoch` are those after it."""
    return StepInfo(
        progress=progress,
        total_steps=total_steps,
        epoch=epoch,
        result=result,
        loss_scale=engine.loss_scale,
        skipped_steps=engine.skipped_steps,
        source_tokens=batch.source_tokens,
        target_tokens=batch.target_tokens,
        padded_source_tokens=batch.padded_source_tokens,
        padded_target_tokens=batch.padded_target_tokens,
        data_seconds=batch.data_seconds,
        seconds=seconds,
    )


@dataclass
class Control:
    """What hooks may request of the loop."""

    record: Callable[[Row], None]
    """Appends a row to metrics.jsonl on rank 0; does nothing on the others."""
    stop_reason: str | None = None
    preempted: bool = False
    checkpoint_requested: bool = False
    unsaved: str | None = None
    """Why the last requested checkpoint could not be saved; None if it was."""

    def request_checkpoint(self) -> None:
        """Save at this step."""
        self.checkpoint_requested = True

    def request_stop(self, reason: str, *, preempted: bool = False) -> None:
        """End after this step, with a checkpoint. Every rank must request it at the same step."""
        self.stop_reason = self.stop_reason or reason
        self.preempted = self.preempted or preempted


class Hook:
    """What the loop calls. All ranks call all hooks in the same order, so a hook may use collective operations."""

    name: str = ""
    """Key of the hook's state in a checkpoint."""

    def on_start(self, progress: Progress, control: Control) -> None:
        """Before the first step of this process."""

    def on_step(self, info: StepInfo, control: Control) -> None:
        """After every optimizer step."""

    def on_stop(self, progress: Progress, control: Control) -> None:
        """After the last step, unless an error ended the run."""

    def on_error(self, error: BaseException) -> None:
        """On the rank that failed; no collective operations, since the others may be gone."""

    def state(self) -> dict[str, Any]:
        """What must survive a restart, as JSON values. Called on all ranks."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the `state()` of an earlier process."""

    def reset(self, parts: Collection[Part], *, attempt: int) -> list[str]:
        """Forget what was restored of `parts`, at the beginning of an attempt; returns what was forgotten, in sentences."""
        return []


def new_event(event: Event, step: int, *, message: str | None = None, **values: Any) -> EventRow:
    """The row of an event that happens now; `values` are further fields of it."""
    return EventRow(event, step, datetime.now(UTC).isoformat(timespec="seconds"), message, **values)
