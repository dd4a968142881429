"""The work that is foretold is that of the run: its steps, micro-batches and evaluation batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dstrain.data.cuts import Cut
from dstrain.data.plan import Plan, Position
from dstrain.evaluation.generate import MIN_CAP_MARGIN, MIN_ROW_TOKENS, plan_batches, plan_cap
from dstrain.forecast import workload as module
from dstrain.forecast.lengths import RowLengths
from dstrain.forecast.workload import Batch, Workload, find_searches, find_workload
from tests.unit.forecast.forecast_cases import build_recipe

RANDOM = np.random.default_rng(0)
LENGTHS = RowLengths(
    source=RANDOM.integers(3, 60, 1000).astype(np.int32),
    target=RANDOM.integers(3, 40, 1000).astype(np.int32),
    eval_source=RANDOM.integers(3, 60, 300).astype(np.int32),
    eval_target=RANDOM.integers(3, 40, 300).astype(np.int32),
    fingerprint="abc",
    mixture=None,
    is_exact=True,
    origin="here",
)


def work(folder: Path, *, device: str = "cpu", **changes: Any) -> Workload:
    return find_workload(build_recipe(folder, **changes), lengths=LENGTHS, device=device)


def test_the_steps_are_those_of_the_runs_plan(tmp_path: Path) -> None:
    found = work(tmp_path)
    plan = Plan(
        LENGTHS.source, LENGTHS.target, fingerprint="abc", seed=42, batch_size=16, batch_unit="sequences", cut=Cut(8192)
    )
    assert found.steps_per_epoch == plan.num_steps(0) == len(found.steps) == 63
    for number, step in enumerate(found.steps):
        real = plan.step(Position(0, number))
        assert [batch.num_rows for batch in step] == [len(rows) for rows in real.micro_batches]
        assert sum(batch.labels for batch in step) == real.num_target_tokens
        assert step[0].source == LENGTHS.source[real.micro_batches[0]].max()


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"training__max_steps": 77}, 77),
        ({"training__max_steps": None, "training__epochs": 2.5}, 158),
        ({"training__max_steps": None, "training__epochs": 2.0, "training__batch_unit": "target_tokens"}, None),
    ],
)
def test_the_number_of_steps(changes: dict[str, Any], steps: int | None, tmp_path: Path) -> None:
    found = work(tmp_path, **changes)
    if steps is None:
        plan = Plan(
            LENGTHS.source,
            LENGTHS.target,
            fingerprint="abc",
            seed=42,
            batch_size=16,
            batch_unit="target_tokens",
            cut=Cut(8192),
        )
        steps = plan.total_steps(epochs=2.0)
    assert found.total_steps == steps


@pytest.mark.parametrize(
    ("changes", "evaluations", "saves"),
    [
        ({"evaluation__every_steps": 30}, 4, 4),
        ({"evaluation__every_steps": 50}, 2, 2),
        ({"evaluation__every_steps": None}, 1, 1),
        ({"evaluation__every_steps": None, "evaluation__every_epochs": 0.5}, 4, 4),
        ({"checkpoint__every_steps": 10}, 4, 10),
    ],
)
def test_evaluations_and_saves(changes: dict[str, Any], evaluations: int, saves: int, tmp_path: Path) -> None:
    found = work(tmp_path, **changes)
    assert (found.num_evaluations, found.num_saves) == (evaluations, saves)


def test_a_null_overhead_is_that_of_the_device(tmp_path: Path) -> None:
    on_cpu, on_gpu = (work(tmp_path, device=device, training__batch_size=400) for device in ("cpu", "cuda"))
    assert on_gpu.micro_batches < on_cpu.micro_batches


@pytest.mark.parametrize(
    "changes", [{}, {"evaluation__batch_size": 7}, {"evaluation__num_beams": 4}, {"evaluation__max_rows": 90}]
)
def test_evaluation_batches_are_those_of_the_search(changes: dict[str, Any], tmp_path: Path) -> None:
    config = build_recipe(tmp_path, machine__evaluation_tokens=500, **changes)
    num = config.evaluation.max_rows or 300
    real = plan_batches(
        LENGTHS.eval_source[:num],
        languages=["en"] * num,
        batch_size=config.evaluation.batch_size,
        max_tokens=500 // config.evaluation.num_beams,
    )
    found = find_searches(config, lengths=LENGTHS, device="cpu")
    assert [batch.num_rows for batch in found.batches] == [len(batch.rows) for batch in real]
    assert [batch.target for batch in found.batches] == [
        max(int(LENGTHS.eval_target[row]) for row in batch.rows) for batch in real
    ]
    longest = int(LENGTHS.eval_target.max())
    assert found.cap == plan_cap(config.evaluation, longest_reference=longest, max_positions=None).max_new_tokens
    assert found.num_rows == num


def test_the_constants_are_those_of_the_search() -> None:
    assert (module.MIN_ROW_TOKENS, module.MIN_CAP_MARGIN) == (MIN_ROW_TOKENS, MIN_CAP_MARGIN)


def test_the_largest_micro_batch_is_by_the_cost_that_is_given(tmp_path: Path) -> None:
    found = work(tmp_path)
    wide = found.largest(lambda batch: batch.source)
    assert wide.source == max(batch.source for step in found.steps for batch in step)
    assert isinstance(found.largest(lambda batch: batch.labels), Batch)
