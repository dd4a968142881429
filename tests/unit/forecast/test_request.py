"""Options of `dstrain plan` to a request."""

from pathlib import Path
from typing import Any

import pytest

from dstrain.errors import UserError
from dstrain.forecast.plan import Request
from dstrain.forecast.request import build_request
from tests.unit.forecast.forecast_cases import build_recipe

NOTHING: dict[str, Any] = {
    "gpus": 1, "nodes": 1, "gpu": None, "gpu_memory": None, "hours": None, "like": None, "parameters": None, "gpus_here": 0,
}  # fmt: skip


def ask(folder: Path, *, device: str | None = None, **options: Any) -> Request:
    config = build_recipe(folder)
    config = config.model_copy(update={"machine": config.machine.model_copy(update={"device": device})})
    return build_request(config, **NOTHING | options)


def test_gpus_elsewhere_are_named_by_kind_or_by_memory(tmp_path: Path) -> None:
    found = ask(tmp_path, gpu="h100", gpus=4, nodes=2)
    assert (found.machines.device, found.machines.world_size) == ("cuda", 8)
    assert found.capacity is not None
    assert 70e9 < found.capacity < 80e9
    assert ask(tmp_path, gpu_memory="10GB").capacity == 10_000_000_000


@pytest.mark.parametrize(
    ("options", "device"),
    [({}, "cpu"), ({"gpus_here": 2}, "cuda"), ({"device": "cuda"}, "cuda"), ({"gpu": "cpu", "gpus_here": 2}, "cpu")],
)
def test_otherwise_the_recipe_and_this_machine_say_what_is_meant(
    options: dict[str, Any], device: str, tmp_path: Path
) -> None:
    found = ask(tmp_path, **options)
    assert (found.machines.device, found.capacity) == (device, None)


def test_a_gpu_for_a_recipe_of_the_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the recipe trains on the CPU"):
        ask(tmp_path, device="cpu", gpu="h100")
