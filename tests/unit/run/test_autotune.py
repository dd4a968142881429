"""Where the budget of a micro-batch and compiled layers come from when the recipe leaves them open."""

import logging
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from dstrain.config.device_defaults import CPU_TOKENS, OVERHEADS
from dstrain.config.load import dump_config, load_config
from dstrain.config.machine import Machine
from dstrain.config.schema import RunConfig
from dstrain.run.autotune import TunedMachine, measure_apart, resolve_machine
from dstrain.run.prepare import Prepared, prepare
from tests.system.runs import build_run

CPU = Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None)
GPU = Ranks(process=read_process_info({}), device=torch.device("cuda"), group=None)


@dataclass
class Case:
    """A run whose recipe leaves both open, on a GPU that is a name alone."""

    folder: Path
    answer: TunedMachine = field(default_factory=lambda: TunedMachine(20_000, True, "faster"))
    asked: list[Machine] = field(default_factory=list)
    free: int = 79 << 30
    """Bytes of the GPU that no process has taken."""

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
    case = Case(tmp_path)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (case.free, 80 << 30))
    return case


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


def test_what_other_processes_have_taken_is_part_of_the_question(case: Case) -> None:
    assert case.resolve(run="first") == (20_000, True)
    case.free = 40 << 30
    case.answer = TunedMachine(10_000, True, "")
    assert case.resolve(run="second") == (10_000, True)
    case.free -= 100 << 20  # what varies from start to start is not
    case.free += 200 << 20
    assert case.resolve(run="third") == (10_000, True)


def test_the_process_that_measures_knows_nothing_of_the_launcher(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}

    def run(command: list[str], *, env: dict[str, str], **options: Any) -> Any:
        seen.update(env)
        printed = (
            'NCCL version 2.27\n{"budget": 700, "compile": false, "reason": ""}\nn1:123 [0] NCCL INFO comm destroyed\n'
        )
        return SimpleNamespace(returncode=0, stdout=printed, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    for name in ("RANK", "TORCHELASTIC_USE_AGENT_STORE", "GROUP_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"):
        monkeypatch.setenv(name, "1")
    config = build_run(case.folder)
    assert measure_apart(config, prepare(config, ranks=CPU)) == TunedMachine(700, False, "")
    assert not [name for name in seen if name.startswith(("RANK", "TORCHELASTIC", "GROUP", "SLURM", "OMPI"))]
    assert "PATH" in seen


def test_where_not_one_row_fits_the_way_out_is_said(case: Case) -> None:
    case.answer = TunedMachine(None, False, "")
    with pytest.raises(ValueError, match=r"not even the longest row alone fits .* set a number"):
        case.resolve()


@pytest.mark.parametrize("content", ["[1]", "{", '{"budget": 1}', "[" * 100_000, None])
def test_what_the_cache_has_is_measured_again_if_it_cannot_be_used(content: str | None, case: Case) -> None:
    case.resolve()
    (kept,) = (case.folder / "cache" / "machines").iterdir()
    if content is None:
        kept.rename(kept.with_name("other"))
        kept.symlink_to("other")
    else:
        kept.write_text(content)
    case.resolve(run="other")
    assert len(case.asked) == 2
