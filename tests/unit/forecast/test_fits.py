"""Which stage is recommended, what fits, and what is refused."""

from typing import Any

import pytest

from dstrain.config.machine import Machine
from dstrain.forecast.fits import GB, Memory, allowed_stages, judge, overhead, recommend_stage, refusal
from dstrain.forecast.memory import ModelMemory

CAPACITY = int(80 * GB)


def memory(stage: int, *, gigabytes: float, activations: float = 0.0) -> Memory:
    weights = int(gigabytes * GB)
    model = ModelMemory(weights, 0, 0, 0, 0, 0, keeps_gradients=False)
    return Memory(stage, model, int(activations * GB), 0, 0)


def test_it_fits_is_tight_or_does_not_fit() -> None:
    verdicts = [judge(memory(1, gigabytes=size), capacity=CAPACITY, world_size=1) for size in (60, 78, 79.9, 81)]
    assert verdicts == ["fits", "tight", "does not fit", "does not fit"]


def test_other_ranks_need_room_for_their_messages() -> None:
    alone, together = (overhead(10**10, world_size=size) for size in (1, 8))
    assert all(one < two for one, two in zip(alone, together, strict=True))
    assert alone[0] < alone[1]


def test_the_peak_is_that_of_training_or_of_evaluation() -> None:
    model = ModelMemory(10, 20, 5, 3, 2, 50, keeps_gradients=True)
    assert Memory(3, model, 7, 1, 4).training == 10 + 20 + 5 + 3 + 2 + 7 + 1
    assert Memory(3, model, 7, 1, 4).peak == 10 + 20 + 5 + 3 + 50 + 4


@pytest.mark.parametrize(
    ("changes", "precision", "stages"),
    [
        ({}, "fp32", (0, 1, 2, 3)),
        ({}, "bf16", (1, 2, 3)),
        ({"offload_optimizer": True}, "fp32", (1, 2, 3)),
        ({"offload_parameters": True}, "bf16", (3,)),
        ({"compile": True}, "bf16", (1, 2)),
    ],
)
def test_other_keys_decide_which_stages_there_are(
    changes: dict[str, Any], precision: str, stages: tuple[int, ...]
) -> None:
    assert allowed_stages(Machine(zero_stage=None, **changes), precision=precision) == stages


def test_the_first_stage_that_fits_is_recommended() -> None:
    sizes = [memory(stage, gigabytes=size) for stage, size in enumerate((200, 79, 60, 20))]
    assert recommend_stage(sizes, allowed=(0, 1, 2, 3), capacity=CAPACITY, world_size=8)[0] == 2
    assert recommend_stage(sizes[:2], allowed=(0, 1), capacity=CAPACITY, world_size=8)[0] == 1
    stage, why = recommend_stage(sizes, allowed=(0, 1, 2, 3), capacity=int(GB), world_size=8)
    assert (stage, why) == (3, "none fits; this one needs least")


def test_without_a_memory_the_optimizer_is_shared_where_there_are_ranks() -> None:
    sizes = [memory(stage, gigabytes=1) for stage in range(4)]
    assert recommend_stage(sizes, allowed=(0, 1, 2, 3), capacity=None, world_size=1)[0] == 0
    assert recommend_stage(sizes, allowed=(0, 1, 2, 3), capacity=None, world_size=2)[0] == 1
    assert recommend_stage(sizes, allowed=(3,), capacity=None, world_size=2)[0] == 3


def test_only_what_surely_fails_is_refused() -> None:
    options: dict[str, Any] = {
        "capacity": CAPACITY,
        "device": "NVIDIA H100",
        "world_size": 8,
        "num_trained": 10**10,
        "smallest": memory(3, gigabytes=25),
    }
    assert refusal(memory(1, gigabytes=79.9, activations=100), **options) is None
    refused = refusal(memory(1, gigabytes=160), **options)
    assert refused is not None
    assert "take 160.0 GB on each GPU with ZeRO 1, and NVIDIA H100 has 80.0 GB" in refused
    assert "machine.zero_stage=3 (these parts take 25.0 GB there on 8 GPUs)" in refused
    assert "machine.offload_optimizer=true" in refused
