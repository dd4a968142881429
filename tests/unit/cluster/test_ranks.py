"""The device of a rank, and the exchanges of a rank that is alone. Two real ranks are the business of tests/distributed."""

from dataclasses import replace

import pytest
import torch

from dstrain.cluster.environment import Place, discover_place
from dstrain.cluster.process_group import Ranks, choose_device


def show_gpus(monkeypatch: pytest.MonkeyPatch, *, count: int) -> list[torch.device]:
    """Pretend to have GPUs; gives the devices that are chosen."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def place(local_rank: int, *, launcher: str = "torchrun") -> Place:
    return replace(discover_place({}), local_rank=local_rank, world_size=8, launcher=launcher)


@pytest.mark.parametrize("local_rank", [0, 7])
def test_without_a_gpu_every_rank_takes_the_cpu(local_rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpus(monkeypatch, count=0)
    assert choose_device(place(local_rank)) == torch.device("cpu")


@pytest.mark.parametrize("local_rank", [0, 3])
def test_with_several_gpus_a_rank_takes_that_of_its_number(local_rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = show_gpus(monkeypatch, count=4)
    assert choose_device(place(local_rank)) == torch.device("cuda", local_rank)
    assert chosen == [torch.device("cuda", local_rank)]


def test_the_only_gpu_that_slurm_shows_a_task_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpus(monkeypatch, count=1)
    assert choose_device(place(3, launcher="srun")) == torch.device("cuda", 0)


@pytest.mark.parametrize(("count", "launcher"), [(4, "srun"), (1, "torchrun")])
def test_more_ranks_than_gpus_are_refused(count: int, launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpus(monkeypatch, count=count)
    with pytest.raises(ValueError, match=f"LOCAL_RANK 4 has no GPU: this node shows {count}"):
        choose_device(place(4, launcher=launcher))


def test_a_rank_that_is_alone_needs_no_process_group() -> None:
    ranks = Ranks(place=discover_place({}), device=torch.device("cpu"), group=None)
    assert ranks.gather("x") == ["x"]
    assert ranks.broadcast({"a": 1}) == {"a": 1}
    assert ranks.max([3, -1]) == [3, -1]
    assert ranks.sum([0.1, 2.0]) == [0.1, 2.0]
    ranks.barrier()
