"""Where the budget of a micro-batch and compiled layers come from when the recipe leaves them open, and how they are found."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from dstrain.config.load import dump_config, load_config
from dstrain.config.machine import Machine
from dstrain.config.schema import RunConfig
from dstrain.run.autotune import CPU_TOKENS, OVERHEADS, TunedMachine, resolve_machine
from dstrain.run.autotune_probe import Request, answer, find_faster, is_faster, plan_budget
from dstrain.run.prepare import Prepared, prepare
from tests.system.runs import build_run

CPU = Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None)
GPU = Ranks(process=read_process_info({}), device=torch.device("cuda"), group=None)


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
    found = answer(Request(config, "", "", ""), probe=probe, limit_bytes=1000)
    assert (found["budget"], found["compile"]) == expected
    assert probe.is_compiled is (compile is None)
    assert bool(found["reason"]) is (compile is None)


@dataclass
class Case:
    """A run whose recipe leaves both open, on a GPU that is a name alone."""

    folder: Path
    answer: TunedMachine = field(default_factory=lambda: TunedMachine(20_000, True, "faster"))
    asked: list[Machine] = field(default_factory=list)

    def measure(self, config: RunConfig, prepared: Prepared) -> TunedMachine:
        """Stands in for the process that measures."""
        self.asked.append(config.machine)
        return self.answer

    def resolve(self, *, ranks: Ranks = GPU, run: str = "run", **changes: Any) -> tuple[int | None, bool | None]:
        """Budget and compiled layers of a run of that name."""
        changes = {
            "machine__micro_batch_tokens": None,
            "machine__compile": None,
            "output_dir": str(self.folder / run),
        } | changes
        config = build_run(self.folder, **changes)
        prepared = prepare(config, ranks=CPU)
        resolved = resolve_machine(config, prepared=prepared, ranks=ranks, measure=self.measure)
        (Path(config.run_dir) / "config.yaml").write_text(dump_config(resolved))
        return resolved.machine.micro_batch_tokens, resolved.machine.compile


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    gpu = SimpleNamespace(name="a GPU", total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    return Case(tmp_path)


def test_what_the_recipe_says_is_taken_and_nothing_is_measured(case: Case) -> None:
    assert case.resolve(machine__micro_batch_tokens=512, machine__compile=True) == (512, True)
    assert case.resolve(machine__micro_batch_tokens=512, machine__compile=False) == (512, False)
    assert case.asked == []


def test_without_a_gpu_nothing_is_measured_and_layers_are_eager(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert case.resolve(ranks=CPU) == (CPU_TOKENS, False)
    assert "there is no GPU memory to fill" in caplog.text
    assert "layers are not compiled: without a GPU they would not be faster" in caplog.text
    assert case.asked == []


def test_both_are_measured_at_once_and_once_for_a_model_gpu_and_precision(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert [case.resolve(run="first"), case.resolve(run="second", seed=7)] == [(20_000, True)] * 2
    assert len(case.asked) == 1
    assert [line for line in caplog.messages if "as measured before" in line and "layers are compiled" in line]
    case.answer = TunedMachine(40_000, False, "slower")
    assert case.resolve(run="third", precision="bf16") == (40_000, False)
    assert len(case.asked) == 2


def test_what_one_question_leaves_out_stands_as_it_is(case: Case) -> None:
    case.answer = replace(case.answer, budget=512)
    assert case.resolve(run="first", machine__micro_batch_tokens=512) == (512, True)
    case.answer = TunedMachine(30_000, False, "")
    assert case.resolve(run="second", machine__compile=False) == (30_000, False)
    found = [(machine.micro_batch_tokens, machine.compile) for machine in case.asked]
    assert found == [(512, None), (None, False)]


def test_where_the_size_pins_a_micro_batch_no_budget_is_measured(case: Case) -> None:
    assert case.resolve(machine__micro_batch_size=4, machine__compile=False) == (CPU_TOKENS, False)
    assert case.asked == []
    case.answer = TunedMachine(CPU_TOKENS, True, "faster")
    assert case.resolve(run="second", machine__micro_batch_size=4) == (CPU_TOKENS, True)
    assert [machine.micro_batch_tokens for machine in case.asked] == [CPU_TOKENS]


def test_under_zero_3_layers_are_eager_and_only_the_budget_is_measured(case: Case) -> None:
    case.answer = TunedMachine(20_000, False, "")
    assert case.resolve(machine__zero_stage=3) == (20_000, False)
    assert [machine.compile for machine in case.asked] == [False]


def test_a_run_that_goes_on_keeps_its_own_and_compiles_where_it_can(case: Case) -> None:
    assert case.resolve() == (20_000, True)
    case.answer = TunedMachine(1, False, "")
    assert case.resolve(machine__offload_optimizer=True) == (20_000, True)
    assert case.resolve(machine__zero_stage=3) == (20_000, False)
    assert case.resolve(ranks=CPU) == (20_000, False)
    assert len(case.asked) == 1


def test_what_a_micro_batch_costs_is_the_devices_own_unless_the_run_began_with_another(case: Case) -> None:
    def overhead(run: str) -> int | None:
        return load_config(str(case.folder / run / "config.yaml")).machine.micro_batch_overhead

    for run, ranks, later in (("cpu", CPU, GPU), ("cuda", GPU, CPU)):
        for each in (ranks, later):
            case.resolve(ranks=each, run=run)
            assert overhead(run) == OVERHEADS[run]
    case.resolve(run="cpu", machine__micro_batch_overhead=0)
    assert overhead("cpu") == 0


def test_where_not_one_row_fits_the_way_out_is_said(case: Case) -> None:
    case.answer = TunedMachine(None, False, "")
    with pytest.raises(ValueError, match=r"not even the longest row alone fits .* set a number"):
        case.resolve()
