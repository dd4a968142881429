"""Which machines a user means."""

from typing import Any

import pytest

from dstrain.errors import UserError
from dstrain.forecast.request import describe_machines

HERE: dict[str, Any] = {
    "gpu": None, "gpu_memory": None, "per_node": 2, "num_nodes": 3, "device": None, "has_gpu": False, "num_cores": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "device", "capacity"),
    [
        ({}, "cpu", None),
        ({"has_gpu": True}, "cuda", None),
        ({"has_gpu": True, "device": "cpu"}, "cpu", None),
        ({"device": "cuda"}, "cuda", None),
        ({"gpu": "h100"}, "cuda", 77.6e9),
        ({"gpu": "h100", "gpu_memory": "40GB"}, "cuda", 40e9),
        ({"gpu_memory": "24GB"}, "cuda", 24e9),
        ({"gpu": "cpu", "has_gpu": True}, "cpu", None),
    ],
)
def test_machines(changes: dict[str, Any], device: str, capacity: float | None) -> None:
    machines, found = describe_machines(**(HERE | changes))
    assert machines.device == device
    assert found == capacity
    assert (machines.world_size, machines.num_nodes, machines.cores) == (6, 3, 4)
    assert (machines.gpu is not None) == (changes.get("gpu") == "h100")


def test_a_gpu_for_a_recipe_that_trains_on_the_cpu_is_refused() -> None:
    with pytest.raises(UserError, match="the recipe trains on the CPU"):
        describe_machines(**(HERE | {"gpu": "h100", "device": "cpu"}))
