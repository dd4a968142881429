"""One row per logging interval in metrics.jsonl, and on a progress bar or as a line."""

import logging
import time
from collections import Counter
from collections.abc import Collection
from datetime import timedelta
from typing import Any

from torch import Tensor

from dstrain.checkpoint.changes import Part
from dstrain.cluster.process_group import Ranks
from dstrain.cluster.progress import CENTURY
from dstrain.cluster.progress import Progress as Bar
from dstrain.config.schema import RunConfig
from dstrain.engine.engine import peak_memory_mb
from dstrain.run_folder.rows import TrainRow
from dstrain.training.meters import LossMeter
from dstrain.training.state import Control, Hook, Progress, StepInfo

SUMMED = (
    "source_tokens",
    "target_tokens",
    "padded_source_tokens",
    "padded_target_tokens",
    "data_seconds",
)
"""Fields of StepInfo that a row of metrics.jsonl sums over its interval."""

ALARM_SKIPS = 3
"""Consecutive skipped fp16 steps that are warned about: the loss scale keeps falling."""

log = logging.getLogger(__name__)


class LogHook(Hook):
    """Writes a row about the steps since the last one; the only place where a step's tensors are read on the host."""

    name = "log"

    def __init__(self, *, config: RunConfig, ranks: Ranks, total_steps: int, is_terminal: bool) -> None:
        """On a terminal, of which `is_terminal` knows, a bar shows what is a line elsewhere."""
        self._config = config
        self._ranks = ranks
        self._loss = LossMeter(ranks)
        self._sums: Counter[str] = Counter()
        self._trained_seconds = 0.0
        self._streak = 0
        self._longest_streak = 0
        self._finite_norm: Tensor | float | None = None
        self._total_steps = total_steps
        self._started, self._first_step = time.monotonic(), 0
        self._has_bar = is_terminal and ranks.rank == 0
        self._bar: Bar | None = None

    def on_start(self, progress: Progress, control: Control) -> None:
        self._started, self._first_step = time.monotonic(), progress.step
        if self._has_bar:
            self._bar = Bar("training", unit="steps", total=self._total_steps, done=progress.step, is_terminal=True)

    def on_step(self, info: StepInfo, control: Control) -> None:
        self._loss.add(info.result.loss_sum, num_tokens=info.target_tokens)
        self._sums.update({name: getattr(info, name) for name in (*SUMMED, "seconds")})
        self._count_skips(info)
        if self._bar is not None:
            self._bar.show(info.step)
        ends = info.is_last or (control.stop_reason is not None and not control.preempted)
        if info.step % self._config.logging.every_steps == 0 or ends:
            self._emit(info, control)

    def on_stop(self, progress: Progress, control: Control) -> None:
        self._close()

    def on_error(self, error: BaseException) -> None:
        self._close()

    def state(self) -> dict[str, Any]:
        return {
            "loss": self._loss.state(),
            "sums": dict(self._sums),
            "trained_seconds": self._trained_seconds,
            "streak": self._streak,
            "longest_streak": self._longest_streak,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self._loss.load_state(state["loss"])
        self._sums = Counter(state["sums"])
        self._trained_seconds = state["trained_seconds"]
        self._streak = state["streak"]
        self._longest_streak = state["longest_streak"]

    def reset(self, parts: Collection[Part], *, attempt: int) -> list[str]:
        if Part.LOSS in parts:
            self._loss.reset()
        return []

    def _count_skips(self, info: StepInfo) -> None:
        if info.result.applied:
            self._streak, self._finite_norm = 0, info.result.grad_norm
            return
        self._streak += 1
        self._longest_streak = max(self._longest_streak, self._streak)
        if self._streak == ALARM_SKIPS and self._ranks.rank == 0:
            norm = "not known" if self._finite_norm is None else f"{float(self._finite_norm):.4g}"
            log.warning(
                "fp16: %d steps in a row overflowed and were skipped, up to step %d. The loss scale is now %g, the last "
                "finite gradient norm was %s, and %d steps of the run were lost to overflow: some at the beginning are "
                "normal, later ones are not. bf16 needs no loss scale; a lower training.learning_rate may also help",
                self._streak,
                info.step,
                info.loss_scale,
                norm,
                info.skipped_steps,
            )

    def _emit(self, info: StepInfo, control: Control) -> None:
        self._trained_seconds += self._sums["seconds"]
        row = TrainRow(
            step=info.step,
            epoch=info.epoch,
            loss=self._loss.mean(),
            learning_rate=info.result.learning_rate,
            grad_norm=float(info.result.grad_norm),
            loss_scale=info.loss_scale,
            skipped_steps=info.skipped_steps,
            skip_rate=info.skipped_steps / info.step,
            halvings_in_a_row=self._longest_streak,
            **{name: self._sums[name] for name in SUMMED},
            target_tokens_per_second=self._sums["target_tokens"] / max(self._sums["seconds"], 1e-9),
            peak_memory_mb=peak_memory_mb(self._ranks.device),
            elapsed_seconds=self._trained_seconds,
        )
        self._loss.reset()
        self._sums.clear()
        self._longest_streak = self._streak
        control.record(row)
        if self._ranks.rank == 0:
            self._show(row)

    def _show(self, row: TrainRow) -> None:
        text = (
            f"loss {row.loss:.4f}  lr {row.learning_rate:.2e}  grad {row.grad_norm:.3f}  "
            f"{row.target_tokens_per_second:,.0f} target tokens/s"
        )
        if self._bar is not None:
            self._bar.note = text
        else:
            eta = self._eta(row.step)
            log.info("step %d/%d  epoch %.2f  %s%s", row.step, self._total_steps, row.epoch, text, eta)

    def _eta(self, step: int) -> str:
        done = step - self._first_step
        if done == 0 or step >= self._total_steps:
            return ""
        seconds = (time.monotonic() - self._started) / done * (self._total_steps - step)
        return f"  ETA {timedelta(seconds=round(seconds))}" if seconds < CENTURY else "  ETA over 100 years"

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
