"""Where the budget of a micro-batch comes from when the recipe leaves it open, and how it is found."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dstrain.budget import CPU_TOKENS, settle_budget
from dstrain.cluster.environment import discover_place
from dstrain.cluster.process_group import Ranks
from dstrain.config.load import dump_config
from dstrain.config.schema import RunConfig
from dstrain.prepare import Prepared, prepare
from dstrain.probe import plan_budget
from tests.system.runs import build_run

CPU = Ranks(place=discover_place({}), device=torch.device("cpu"), group=None)
GPU = Ranks(place=discover_place({}), device=torch.device("cuda"), group=None)


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


@dataclass
class Case:
    """A run whose recipe leaves the budget open, on a GPU that is a name alone."""

    folder: Path
    answer: int | None = 20_000
    num_probed: int = 0

    def probe(self, config: RunConfig, *, prepared: Prepared) -> int | None:
        """Stands in for the process that measures."""
        self.num_probed += 1
        return self.answer

    def settle(self, *, ranks: Ranks = GPU, run: str = "run", **changes: Any) -> int | None:
        """The budget of a run of that name."""
        changes = {"machine__micro_batch_tokens": None, "output_dir": str(self.folder / run)} | changes
        config = build_run(self.folder, **changes)
        prepared = prepare(config, ranks=CPU)
        settled = settle_budget(config, prepared=prepared, ranks=ranks, probe=self.probe)
        (Path(config.run_dir) / "config.yaml").write_text(dump_config(settled))
        return settled.machine.micro_batch_tokens


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    gpu = SimpleNamespace(name="a GPU", total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    return Case(tmp_path)


def test_a_number_in_the_recipe_is_taken_and_nothing_is_measured(case: Case) -> None:
    assert case.settle(machine__micro_batch_tokens=512) == 512
    assert case.num_probed == 0


def test_without_a_gpu_nothing_is_measured(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert case.settle(ranks=CPU) == CPU_TOKENS
    assert "there is no GPU memory to fill" in caplog.text
    assert case.num_probed == 0


def test_it_is_measured_once_for_a_model_gpu_and_precision(case: Case) -> None:
    assert [case.settle(run="first"), case.settle(run="second", seed=7)] == [20_000, 20_000]
    assert case.num_probed == 1
    case.answer = 40_000
    assert case.settle(run="third", precision="bf16") == 40_000
    assert case.num_probed == 2


def test_a_run_that_goes_on_keeps_its_own_wherever_it_does(case: Case) -> None:
    assert case.settle() == 20_000
    assert case.settle(ranks=CPU) == 20_000


def test_where_not_one_row_fits_the_way_out_is_said(case: Case) -> None:
    case.answer = None
    with pytest.raises(ValueError, match=r"not even the longest row alone fits .* set a number"):
        case.settle()
