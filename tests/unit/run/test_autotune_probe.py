"""How the budget of a micro-batch is searched for, and when compiled layers are worth it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dstrain.run.autotune_probe import Request, answer, find_budget, find_faster, is_faster, longest_rows, plan_budget
from tests.system.runs import build_run


@dataclass
class Memory:
    """Peak memory by budget, and what was asked."""

    peak: Callable[[int], float]
    room: float = float("inf")
    asked: list[int] = field(default_factory=list)

    def __call__(self, budget: int) -> int | None:
        self.asked.append(budget)
        return None if self.peak(budget) > self.room else round(self.peak(budget))


@pytest.mark.parametrize("base", [0, 10_000, 700_000])
@pytest.mark.parametrize("rate", [0.5, 3, 250])
def test_memory_is_filled_to_within_a_tenth_and_nothing_is_tried_that_does_not_fit(base: int, rate: float) -> None:
    memory = Memory(lambda budget: base + rate * budget)
    found = plan_budget(memory, smallest=100, largest=10**9, limit_bytes=1_000_000)
    assert found is not None
    assert 0.9 * (1_000_000 - base) / rate <= found <= (1_000_000 - base) / rate
    assert max(memory.asked) == found


def test_what_does_not_matter_to_a_small_budget_is_not_taken_for_a_flat_line() -> None:
    memory = Memory(lambda budget: max(300_000, 100 * budget))  # an evaluation takes more than small steps
    found = plan_budget(memory, smallest=100, largest=10**9, limit_bytes=1_000_000)
    assert found is not None
    assert 9_000 <= found <= 10_000


def test_a_flat_beginning_over_half_of_memory_costs_one_try_too_large() -> None:
    memory = Memory(lambda budget: max(600_000, 100 * budget))
    found = plan_budget(memory, smallest=100, largest=10**9, limit_bytes=1_000_000)
    assert found is not None
    assert 9_000 <= found <= 10_000
    assert sum(budget > 10_000 for budget in memory.asked) == 1


def test_a_budget_is_no_larger_than_a_step() -> None:
    memory = Memory(float)
    assert plan_budget(memory, smallest=100, largest=5_000, limit_bytes=10**6) == 5_000
    assert plan_budget(memory, smallest=100, largest=100, limit_bytes=10**6) == 100


def test_where_memory_runs_out_all_the_same_the_last_that_fitted_is_taken() -> None:
    memory = Memory(lambda budget: budget**2 / 1000, room=50_000)
    found = plan_budget(memory, smallest=100, largest=10**9, limit_bytes=200_000)
    assert found in memory.asked
    assert found is not None
    assert memory(found) is not None


def test_not_even_one_row_may_fit() -> None:
    assert plan_budget(Memory(lambda budget: 10.0**9), smallest=100, largest=1000, limit_bytes=1000) is None
    assert plan_budget(Memory(lambda budget: 1.0, room=0), smallest=100, largest=1000, limit_bytes=1000) is None


@pytest.mark.parametrize(
    ("compiled", "eager", "expected"),
    [
        ([0.9, 0.9, 0.9], [1.0, 1.0, 1.0], True),
        ([0.99, 0.99, 0.99], [1.0, 1.0, 1.0], False),  # a gain, but not worth compiling for
        ([1.2, 1.2, 1.2], [1.0, 1.0, 1.0], False),
        ([0.9, 0.9, 30.0], [1.0, 1.0, 1.0], True),  # one step was held up
        ([1.0, 1.0, 1.0], [1.0, 1.0, 30.0], False),
    ],
)
def test_layers_are_compiled_where_the_middle_step_gains_more_than_noise(
    compiled: list[float], eager: list[float], expected: bool
) -> None:
    assert is_faster(compiled, eager=eager) is expected


@dataclass
class Stopwatch:
    """Stands in for a probe: seconds eager and compiled, and compiled memory."""

    eager: float = 1.0
    compiled: float = 0.5
    peak: int | None = 900
    error: Exception | None = None
    is_compiled: bool = False
    is_spent: bool = False
    budgets: list[int] = field(default_factory=list)
    width: int = 100

    def compile(self) -> None:
        self.is_compiled = True

    def time(self, budget: int) -> list[float]:
        self.budgets.append(budget)
        if self.is_compiled and self.error is not None:
            raise self.error
        return [self.compiled if self.is_compiled else self.eager]

    def measure(self, budget: int) -> int | None:
        self.budgets.append(budget)
        return self.peak


@pytest.mark.parametrize(
    ("probe", "expected", "reason"),
    [
        (Stopwatch(), True, "a step takes 0.5000 s compiled, 1.0000 s eager"),
        (Stopwatch(compiled=0.999), False, "a step takes 0.9990 s compiled, 1.0000 s eager"),
        (Stopwatch(peak=1001), False, "the same micro-batches do not fit into memory"),
        (Stopwatch(peak=None), False, "the same micro-batches do not fit into memory"),
        (Stopwatch(error=OSError("no compiler")), False, "compiling failed (OSError: no compiler)"),
    ],
)
def test_layers_stay_eager_unless_compiled_ones_are_faster_fit_and_work(
    probe: Any, expected: bool, reason: str
) -> None:
    found, why = find_faster(probe, budget=700, limit_bytes=1000)
    assert (found, reason in why) == (expected, True), why
    assert set(probe.budgets) == {700}


@pytest.mark.parametrize(
    ("tokens", "compile", "expected"),
    [(700, None, (700, True)), (None, None, (1000, True)), (None, True, (1000, True)), (None, False, (1000, False))],
)
def test_the_probe_answers_what_is_asked_and_no_more(
    tmp_path: Path, tokens: int | None, compile: bool | None, expected: tuple[int, bool]
) -> None:
    changes = {"micro_batch_tokens": tokens, "compile": compile, "min_micro_batches": 1}
    config = build_run(
        tmp_path, training__batch_size=10, **{f"machine__{key}": value for key, value in changes.items()}
    )
    probe: Any = Stopwatch(peak=10)
    found = answer(Request(config, "", "", ""), build_probe=lambda: probe, limit_bytes=1000)
    assert (found["budget"], found["compile"]) == expected
    assert probe.is_compiled is (compile is None)
    assert bool(found["reason"]) is (compile is None)


def test_a_probe_that_ran_out_of_memory_is_not_timed(tmp_path: Path) -> None:
    config = build_run(tmp_path, training__batch_size=10, machine__micro_batch_tokens=None, machine__compile=None)
    probes: list[Any] = [Stopwatch(peak=10, is_spent=True), Stopwatch(peak=10)]
    built = iter(probes)
    found = answer(Request(config, "", "", ""), build_probe=lambda: next(built), limit_bytes=1000)
    assert found["reason"]
    assert [probe.is_compiled for probe in probes] == [False, True]


def test_the_longest_rows_come_first_by_both_sides_together_and_ties_stay_in_order() -> None:
    tokens: Any = SimpleNamespace(source_lengths=np.array([3, 9, 5, 1]), target_lengths=np.array([5, 1, 3, 1]))
    assert longest_rows(tokens).tolist() == [1, 0, 2, 3]


@pytest.mark.parametrize(
    ("training", "min_micro_batches", "largest"),
    [
        ({"batch_size": 10}, 1, 1000),  # rows as long as the longest
        ({"batch_size": 10}, 4, 250),
        ({"batch_size": 50, "batch_unit": "target_tokens"}, 1, 400),
        ({"batch_size": 2}, 8, 100),  # not less than one row
    ],
)
def test_the_budget_is_searched_for_between_the_longest_row_and_a_ranks_part_of_a_step(
    tmp_path: Path, training: dict[str, Any], min_micro_batches: int, largest: int
) -> None:
    changes = {f"training__{key}": value for key, value in training.items()}
    config = build_run(tmp_path, machine__min_micro_batches=min_micro_batches, **changes)
    probe: Any = SimpleNamespace(width=100, measure=Memory(lambda budget: 1.0))
    assert find_budget(Request(config, "", "", ""), probe=probe, limit_bytes=1000) == largest
    assert min(probe.measure.asked) == 100
