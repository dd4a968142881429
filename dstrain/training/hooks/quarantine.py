"""The rows that training leaves out because no step with them can be applied, and the limit on their number.

Keeps them across restarts and lists them in quarantine.jsonl. Does not know how a bad row is found or excluded.
"""

import logging
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dstrain.checkpoint.changes import Part
from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig
from dstrain.data.loader import StepBatch
from dstrain.data.lookup import LocatedRow
from dstrain.engine.engine import Fault, TrainingFault
from dstrain.engine.faults import FaultCause
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import QuarantinedRow, write_quarantine
from dstrain.training.state import Control, Hook, Progress, StepInfo

NUM_SPIKE_STEPS = 100
"""A spike is compared with the mean loss of the last applied steps, at most this many."""
NUM_SHOWN = 5
"""Rows that an error message shows with their texts."""
MAX_SHOWN = 200
"""Characters of a text that an error message shows."""

log = logging.getLogger(__name__)


class Quarantine(Hook):
    """The rows set aside so far, and the recent losses that a spike is compared with."""

    name = "quarantine"

    def __init__(
        self,
        *,
        config: RunConfig,
        ranks: Ranks,
        find_rows: Callable[[StepBatch, Fault, int], FaultCause],
        locate_rows: Callable[[Iterable[int]], Mapping[int, LocatedRow]],
        exclude: Callable[[Iterable[int]], None],
    ) -> None:
        """All ranks call `find_rows(batch, fault, step)`, rank 0 alone `locate_rows`; `exclude` is the loader's."""
        self._config = config
        self._path = RunFolder(Path(config.run_dir)).quarantine
        self._ranks = ranks
        self._find_rows = find_rows
        self._locate_rows = locate_rows
        self._exclude = exclude
        self._rows: list[QuarantinedRow] = []
        self._losses: deque[float] = deque(maxlen=NUM_SPIKE_STEPS)

    @property
    def rows(self) -> tuple[QuarantinedRow, ...]:
        return tuple(self._rows)

    @property
    def loss_limit(self) -> float | None:
        """The largest loss per target token that the next step may have; None if the recipe sets no limit."""
        factor = self._config.training.spike_factor
        if factor is None:
            return None
        return factor * sum(self._losses) / len(self._losses) if self._losses else math.inf

    def set_aside(self, batch: StepBatch, *, fault: Fault, step: int) -> None:
        """Find the rows that made step `step` fail and leave them out from now on; a collective call of all ranks.

        Raises:
            TrainingFault: no row causes it by itself, or more rows would be set aside than the recipe allows.
        """
        finding = self._find_rows(batch, fault, step)
        # rank 0 also writes the message, so that only one rank reads the data again
        judged = self._judge(finding, fault, step) if self._ranks.rank == 0 else None
        found, problem = self._ranks.broadcast(judged, tuple[list[QuarantinedRow], str | None])
        if problem is not None:
            raise TrainingFault(problem)
        self._rows += found
        self._exclude(row.row for row in found)
        self._write()
        if self._ranks.rank == 0:
            for row in found:
                log.warning("step %d was not applied: %s. Set aside: %s", step, fault, _show(row))
            log.warning("step %d is repeated without these rows; %s lists all of them", step, self._path.name)

    def on_start(self, progress: Progress, control: Control) -> None:
        self._exclude(row.row for row in self._rows)
        self._write()  # the file may list rows found after this checkpoint was saved

    def on_step(self, info: StepInfo, control: Control) -> None:
        # a step whose rows are all set aside has loss 0
        if info.result.applied and info.result.mean_loss:
            self._losses.append(info.result.mean_loss)

    def state(self) -> dict[str, Any]:
        return {"rows": [asdict(row) for row in self._rows], "losses": list(self._losses)}

    def load_state(self, state: dict[str, Any]) -> None:
        self._rows = [QuarantinedRow(**row) for row in state["rows"]]
        self._losses = deque(state["losses"], maxlen=NUM_SPIKE_STEPS)

    def reset(self, parts: Collection[Part], *, attempt: int) -> list[str]:
        if Part.ROWS in parts or Part.LOSS in parts:
            self._losses.clear()
        if Part.ROWS not in parts or not self._rows:
            return []
        forgotten, self._rows = len(self._rows), []
        noun = "row is" if forgotten == 1 else "rows are"
        return [
            f"{forgotten} {noun} no longer in quarantine: row numbers mean other rows now; those that still fail are found again"
        ]

    def _judge(self, finding: FaultCause, fault: Fault, step: int) -> tuple[list[QuarantinedRow], str | None]:
        """The rows to set aside; or none, and why the run must stop."""
        rows = finding.rows or dict.fromkeys(finding.suspects, math.nan)
        located = self._locate_rows(rows) if rows else {}
        found = [
            QuarantinedRow(row, step, _reason(fault, loss=loss), *located.get(row, LocatedRow("unknown", "", "")))
            for row, loss in rows.items()
        ]
        limit = self._config.training.max_quarantined_rows
        if finding.rows and len(self._rows) + len(found) <= limit:
            return found, None
        return [], diagnose(fault, finding, step=step, rows=found, num_before=len(self._rows), max_rows=limit)

    def _write(self) -> None:
        if self._ranks.rank == 0 and (self._rows or self._path.exists()):
            write_quarantine(self._path.parent, self._rows)


def diagnose(
    fault: Fault, finding: FaultCause, *, step: int, rows: list[QuarantinedRow], num_before: int, max_rows: int
) -> str:
    """The error message of a run that stops at step `step`: the fault, its rows, what was saved, the way out."""
    sentences = [f"step {step} was not applied: {fault}."]
    if finding.parameters:
        shown = ", ".join(finding.parameters[:NUM_SHOWN])
        sentences.append(f"The weights themselves are not finite, in {len(finding.parameters)} parameters ({shown}).")
    elif finding.rows:
        sentences.append(
            f"Rows that cause it: {len(rows)}; set aside before: {num_before}; training.max_quarantined_rows allows "
            f"{max_rows} in total."
        )
    elif finding.suspects:
        numbers = ", ".join(map(str, finding.micro_batches))
        sentences.append(f"No row causes it by itself; micro-batch {numbers} does, with {len(rows)} rows.")
    else:
        sentences.append("The fault did not recur when its micro-batches were computed again, so no row can be named.")
    if not finding.rows:
        sentences.append(f"Rows set aside so far: {num_before}.")
    sentences.append(
        f"Nothing was saved after step {step - 1}: when started again, the run resumes from its last checkpoint."
    )
    sentences.append(_way_out(fault, finding))
    lines = [f"  {_show(row)}" for row in rows[:NUM_SHOWN]]
    more = [f"  … and {len(rows) - NUM_SHOWN} more"] if len(rows) > NUM_SHOWN else []
    return "\n".join([" ".join(sentences), *lines, *more])


def _way_out(fault: Fault, finding: FaultCause) -> str:
    if finding.parameters:
        return (
            "Check whether the initial model or the checkpoint has them already; if not, lower training.learning_rate."
        )
    if fault.kind == "scale":
        return "Set precision to bf16 or fp32, or lower training.learning_rate."
    if finding.rows:
        return (
            "Correct or remove the rows below if something is wrong with them. If not, raise training.max_quarantined_rows "
            "(with --allow-changed training.max_quarantined_rows); if rows of all kinds fail, lower "
            "training.learning_rate or add training.warmup_steps."
        )
    return "Lower training.learning_rate, add training.warmup_steps, or set precision to fp32."


def _reason(fault: Fault, *, loss: float) -> str:
    return f"{fault}; the row's own loss is {loss:.4g} per target token" if not math.isnan(loss) else str(fault)


def _show(row: QuarantinedRow) -> str:
    source, target = (text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…" for text in (row.source, row.target))
    return f"{row.where} (row {row.row}): {source!r} → {target!r}"
