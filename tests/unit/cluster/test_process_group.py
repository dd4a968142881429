"""Exchanges of a rank that is alone, and of one with a GPU, which is pretended. Two real ranks: tests/distributed."""

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from dstrain.cluster import process_group
from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks, join_ranks

GLOO: Any = "the group on the CPU"


def test_a_rank_that_is_alone_needs_no_process_group() -> None:
    ranks = Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None)
    assert ranks.gather("x", str) == ["x"]
    assert ranks.broadcast({"a": 1}, dict[str, int]) == {"a": 1}
    assert ranks.max([3, -1]) == [3, -1]
    assert ranks.sum([0.1, 2.0]) == [0.1, 2.0]
    ranks.barrier()


@pytest.fixture
def gpu_rank(monkeypatch: pytest.MonkeyPatch) -> Ranks:
    """Rank 3 of 8, which is shown its own GPU only, as Slurm may do."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="GPU-0"))
    monkeypatch.setattr(process_group, "meet", lambda *given, **named: "store")
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **named: None)
    monkeypatch.setattr(dist, "new_group", lambda *given, **named: GLOO)
    process = replace(read_process_info({}), rank=3, local_rank=3, local_world_size=8, world_size=8, launcher="srun")
    return join_ranks(process, timeout_minutes=7)


def test_deepspeed_is_given_the_number_of_the_device_and_neighbours_the_local_rank(gpu_rank: Ranks) -> None:
    assert os.environ["LOCAL_RANK"] == "0"
    assert gpu_rank.device == torch.device("cuda", 0)
    assert (gpu_rank.process.local_rank, os.environ["RANK"]) == (3, "3")


def test_every_exchange_is_on_the_cpu_and_its_group(gpu_rank: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, Any]] = []

    def share(into: list[torch.Tensor], tensor: torch.Tensor) -> None:
        for each in into:
            each.copy_(tensor)

    def record(name: str, act: Callable[..., None] = lambda *given: None) -> None:
        def call(*given: Any, group: Any = None, **named: Any) -> None:
            seen.append((name, group))
            assert all(each.device.type == "cpu" for each in given if isinstance(each, torch.Tensor))
            act(*given)

        monkeypatch.setattr(dist, name, call)

    record("all_gather", share)
    record("gather", lambda tensor, into: share(into, tensor))
    for name in ("broadcast", "all_reduce", "barrier"):
        record(name)
    first = replace(gpu_rank, process=replace(gpu_rank.process, rank=0))
    assert first.gather({"a": 1}, dict[str, int]) == [{"a": 1}] * 8
    assert first.broadcast(1.5, float) == 1.5
    first.max([1])
    first.sum([0.5])
    first.barrier()
    assert {group for _, group in seen} == {GLOO}
    assert [name for name, _ in seen] == "all_gather gather broadcast broadcast all_reduce all_reduce barrier".split()
    assert first.beside().group is GLOO


@pytest.mark.parametrize(("on_this_host", "expected"), [(8, "lo"), (4, None)])
def test_ranks_of_one_host_exchange_on_loopback(
    on_this_host: int, expected: str | None, gpu_rank: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.pop(name, None)
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "local3"), (3, "eth0")])
    join_ranks(replace(gpu_rank.process, local_world_size=on_this_host), timeout_minutes=7)
    assert [os.environ.get(name) for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")] == [expected] * 2
    os.environ["GLOO_SOCKET_IFNAME"] = "ib0"
    join_ranks(gpu_rank.process, timeout_minutes=7)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0", "chosen by the user"
