"""The ZeRO stage of a start, and the refusal of what cannot fit, before a model is loaded."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run import stage as module
from dstrain.run.prepare import prepare
from dstrain.run.stage import settle_stage
from tests.unit.forecast.forecast_cases import build_recipe
from tests.unit.run.run_cases import CPU


def settle(config: RunConfig, *, gpu_bytes: int | None = None, monkeypatch: Any = None) -> int | None:
    """The stage of a start on one rank; with `gpu_bytes` as if its device were a GPU with so much memory."""
    prepared = prepare(config, ranks=CPU)
    if gpu_bytes is None:
        return settle_stage(config, prepared=prepared, ranks=CPU).machine.zero_stage
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=gpu_bytes))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA Tiny")
    ranks: Any = SimpleNamespace(
        device=torch.device("cuda:0"), rank=0, world_size=1, max=CPU.max, broadcast=CPU.broadcast
    )
    return settle_stage(config, prepared=prepared, ranks=ranks).machine.zero_stage


@pytest.mark.parametrize(("precision", "stage"), [("fp32", 0), ("bf16", 1)])
def test_null_takes_the_recommended_stage(precision: str, stage: int, tmp_path: Path) -> None:
    config = build_recipe(tmp_path, precision=precision, machine__zero_stage=None)
    assert settle(config) == stage


def test_a_stage_that_is_given_stays(tmp_path: Path) -> None:
    assert settle(build_recipe(tmp_path, machine__zero_stage=2)) == 2


def test_a_gpu_that_is_large_enough_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = build_recipe(tmp_path, machine__zero_stage=None)
    assert settle(config, gpu_bytes=80 * 10**9, monkeypatch=monkeypatch) == 0


def test_a_model_that_cannot_fit_is_refused_with_numbers_and_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stage in (1, None):
        config = build_recipe(tmp_path, machine__zero_stage=stage)
        with pytest.raises(UserError, match=r"this run cannot fit: weights .* NVIDIA Tiny has 0.0 GB. Take ") as error:
            settle(config, gpu_bytes=100_000, monkeypatch=monkeypatch)
        assert "`dstrain plan` shows each part" in str(error.value)


def test_a_model_of_unknown_size_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise UserError("its sizes are not known")

    monkeypatch.setattr(module, "look_at_model", unknown)
    assert settle(build_recipe(tmp_path, machine__zero_stage=None), gpu_bytes=1, monkeypatch=monkeypatch) == 1
    assert settle(build_recipe(tmp_path, machine__zero_stage=3), gpu_bytes=1, monkeypatch=monkeypatch) == 3
