"""The quarantine: what it lists, when it gives up, what survives a restart, and how a spike is measured."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from dstrain.checkpoint.changes import Part
from dstrain.data.lookup import LocatedRow
from dstrain.data.plan import Position
from dstrain.engine.engine import Fault, StepResult, TrainingFault
from dstrain.engine.faults import FaultCause
from dstrain.training.hooks.quarantine import Quarantine
from dstrain.training.state import Progress
from tests.distributed.steps import build_config
from tests.unit.training.training_cases import Recorder, alone, build_step

FAULT = Fault("loss", loss=math.nan)


class Bench:
    """A quarantine with a search that returns a given result."""

    def __init__(self, folder: Path, **training: Any) -> None:
        changes = {f"training__{name}": value for name, value in training.items()}
        self.finding = FaultCause()
        self.excluded: list[int] = []
        self.path = folder / "quarantine.jsonl"
        self.quarantine = Quarantine(
            config=build_config(output_dir=str(folder), **changes),
            ranks=alone(),
            find_rows=lambda batch, fault, step: self.finding,
            locate_rows=self._locate,
            exclude=self.excluded.extend,
        )

    def set_aside(self, *rows: int, step: int = 7) -> None:
        self.finding = FaultCause(rows=dict.fromkeys(rows, math.nan))
        self.quarantine.set_aside(None, fault=FAULT, step=step)  # type: ignore[arg-type]

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def _locate(self, rows: Iterable[int]) -> Mapping[int, LocatedRow]:
        return {row: LocatedRow(f"rows.tsv:{row + 1}", f"원문 {row}", "text" * 100) for row in rows}


def test_a_row_is_left_out_and_listed_with_its_place_and_texts(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.set_aside(3, 9)
    bench.set_aside(4, step=8)
    assert bench.excluded == [3, 9, 4]
    assert [line["row"] for line in bench.lines()] == [3, 9, 4]
    assert bench.lines()[2] == {
        "row": 4, "step": 8, "reason": "the loss is nan", "where": "rows.tsv:5", "source": "원문 4", "target": "text" * 100,
    }  # fmt: skip
    assert [row.row for row in bench.quarantine.rows] == [3, 9, 4]


def test_quarantined_rows_survive_a_restart_and_are_listed_once(tmp_path: Path) -> None:
    first = Bench(tmp_path)
    first.set_aside(3)
    saved = json.loads(json.dumps(first.quarantine.state()))
    first.set_aside(5)  # after the checkpoint: the next process will find it again
    second = Bench(tmp_path)
    second.quarantine.load_state(saved)
    assert second.quarantine.reset({Part.SCORES}, attempt=2) == []
    second.quarantine.on_start(Progress(7, Position(0, 7)), Recorder().control)
    assert second.excluded == [3]
    assert [line["row"] for line in second.lines()] == [3]
    second.set_aside(5)
    assert [line["row"] for line in second.lines()] == [3, 5]


def test_rows_are_no_longer_left_out_where_their_numbers_mean_others(tmp_path: Path) -> None:
    first = Bench(tmp_path, spike_factor=2.0)
    first.set_aside(3, 4)
    second = Bench(tmp_path, spike_factor=2.0)
    second.quarantine.load_state(first.quarantine.state() | {"losses": [5.0]})
    assert second.quarantine.loss_limit == 10.0
    (said,) = second.quarantine.reset({Part.ROWS}, attempt=2)
    assert said.startswith("2 rows are no longer in quarantine")
    second.quarantine.on_start(Progress(7, Position(0, 7)), Recorder().control)
    assert (second.excluded, second.quarantine.rows, second.lines()) == ([], (), [])
    assert second.quarantine.loss_limit == math.inf


def test_a_spike_is_not_measured_by_losses_of_another_scale(tmp_path: Path) -> None:
    bench = Bench(tmp_path, spike_factor=2.0)
    bench.quarantine.load_state({"rows": [], "losses": [5.0]})
    assert bench.quarantine.reset({Part.LOSS}, attempt=2) == []
    assert bench.quarantine.loss_limit == math.inf


def test_a_run_without_faults_leaves_no_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.quarantine.on_start(Progress(0, Position(0, 0)), Recorder().control)
    assert not bench.path.exists()


def test_no_more_rows_are_quarantined_than_allowed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_quarantined_rows=3)
    bench.set_aside(1, 2)
    bench.set_aside(3)
    with pytest.raises(TrainingFault) as caught:
        bench.set_aside(4, step=12)
    message = str(caught.value)
    for part in (
        "step 12 was not applied: the loss is nan.",
        "Rows that cause it: 1; set aside before: 3; training.max_quarantined_rows allows 3 in total.",
        "Nothing was saved after step 11",
        "raise training.max_quarantined_rows",
        "rows.tsv:5 (row 4): '원문 4' → 'texttext",
    ):
        assert part in message
    assert "text" * 60 not in message
    assert bench.excluded == [1, 2, 3]
    assert [line["row"] for line in bench.lines()] == [1, 2, 3]


def test_a_limit_of_zero_stops_at_the_first_bad_row(tmp_path: Path) -> None:
    with pytest.raises(TrainingFault, match="allows 0"):
        Bench(tmp_path, max_quarantined_rows=0).set_aside(1)


@pytest.mark.parametrize(
    ("fault", "finding", "sentence"),
    [
        (Fault("scale", loss=2.0), FaultCause(), r"smallest loss scale, 1\. The fault did not recur .*bf16 or fp32"),
        (
            FAULT,
            FaultCause(suspects=(3, 4), micro_batches=(2,)),
            r"micro-batch 2 does, with 2 rows\..*rows\.tsv:4 \(row 3\)",
        ),
        (FAULT, FaultCause(parameters=("w", "v")), r"weights themselves are not finite, in 2 parameters \(w, v\)"),
        (Fault("spike", loss=9.0, loss_limit=4.0), FaultCause(), "the loss is 9 per target token, over the limit of 4"),
    ],
)
def test_if_no_row_can_be_named_the_run_stops_with_what_is_known(
    tmp_path: Path, fault: Fault, finding: FaultCause, sentence: str
) -> None:
    bench = Bench(tmp_path)
    bench.finding = finding
    with pytest.raises(TrainingFault, match=f"(?s)step 2 was not applied.*{sentence}"):
        bench.quarantine.set_aside(None, fault=fault, step=2)  # type: ignore[arg-type]
    assert bench.excluded == []
    assert not bench.path.exists()


def apply_steps(bench: Bench, losses: Iterable[float], *, applied: bool = True) -> None:
    for step, loss in enumerate(losses, start=1):
        result = StepResult(torch.tensor(0.0), 1.0, 1e-3, applied, None, loss)
        bench.quarantine.on_step(build_step(step, result=result), Recorder().control)


def test_without_a_factor_no_loss_is_too_large(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    apply_steps(bench, [1.0, 2.0])
    assert bench.quarantine.loss_limit is None


def test_the_limit_is_a_multiple_of_the_mean_of_the_last_hundred_applied_losses(tmp_path: Path) -> None:
    bench = Bench(tmp_path, spike_factor=3.0)
    assert bench.quarantine.loss_limit == math.inf
    apply_steps(bench, [1.0, 2.0])
    assert bench.quarantine.loss_limit == pytest.approx(4.5)
    apply_steps(bench, [99.0], applied=False)
    apply_steps(bench, [0.0])  # a step that has only fillers
    assert bench.quarantine.loss_limit == pytest.approx(4.5)
    apply_steps(bench, [4.0] * 100)
    assert bench.quarantine.loss_limit == pytest.approx(12.0)
    resumed = Bench(tmp_path, spike_factor=3.0)
    resumed.quarantine.load_state(json.loads(json.dumps(bench.quarantine.state())))
    assert resumed.quarantine.loss_limit == bench.quarantine.loss_limit
    apply_steps(resumed, [5.0] * 100)
    assert resumed.quarantine.loss_limit == pytest.approx(15.0)
