"""The device of a rank, and the exchanges of a rank that is alone. Two real ranks are the business of tests/distributed."""

import re
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

from dstrain.cluster.environment import ProcessInfo, read_process_info
from dstrain.cluster.process_group import Ranks, choose_device, named_peer_loss
from dstrain.errors import PeerLost, UserError


def show_gpus(monkeypatch: pytest.MonkeyPatch, *, count: int) -> list[torch.device]:
    """Pretend to have GPUs; returns the devices that are chosen."""
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def process(local_rank: int, *, launcher: str = "torchrun") -> ProcessInfo:
    return replace(read_process_info({}), local_rank=local_rank, world_size=8, launcher=launcher)


@pytest.mark.parametrize("local_rank", [0, 7])
def test_without_a_gpu_every_rank_takes_the_cpu(local_rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpus(monkeypatch, count=0)
    assert choose_device(process(local_rank)) == torch.device("cpu")


@pytest.mark.parametrize("local_rank", [0, 3])
def test_with_several_gpus_a_rank_takes_that_of_its_number(local_rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = show_gpus(monkeypatch, count=4)
    assert choose_device(process(local_rank)) == torch.device("cuda", local_rank)
    assert chosen == [torch.device("cuda", local_rank)]


def test_the_only_gpu_that_slurm_shows_a_task_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpus(monkeypatch, count=1)
    assert choose_device(process(3, launcher="srun")) == torch.device("cuda", 0)


@pytest.mark.parametrize(("count", "launcher"), [(4, "srun"), (1, "torchrun")])
def test_more_ranks_than_gpus_are_refused(count: int, launcher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpus(monkeypatch, count=count)
    with pytest.raises(ValueError, match=f"LOCAL_RANK 4 has no GPU: this node shows {count}"):
        choose_device(process(4, launcher=launcher))


def test_a_rank_that_is_alone_needs_no_process_group() -> None:
    ranks = Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None)
    assert ranks.gather("x") == ["x"]
    assert ranks.broadcast({"a": 1}) == {"a": 1}
    assert ranks.max([3, -1]) == [3, -1]
    assert ranks.sum([0.1, 2.0]) == [0.1, 2.0]
    ranks.barrier()


GLOO_CLOSED = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:59038."
GLOO_LATE = "[../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv"
GLOO_ENFORCED = "[enforce fail at /pytorch/third_party/gloo/gloo/transport/tcp/device.cc:208] ifa != nullptr. Unable to"


@pytest.mark.parametrize(
    "error",
    [
        dist.DistBackendError("NCCL communicator was aborted"),
        dist.DistNetworkError("The client socket has timed out"),
        dist.DistStoreError("wait timeout after 300000ms"),
        RuntimeError(GLOO_CLOSED),
        RuntimeError(GLOO_LATE),
        RuntimeError(GLOO_ENFORCED),
    ],
)
def test_a_broken_connection_is_a_lost_peer_anywhere_in_the_chain(error: Exception) -> None:
    with pytest.raises(PeerLost, match=re.escape(str(error))), named_peer_loss():
        raise error
    with pytest.raises(PeerLost, match="later"), named_peer_loss():
        raise KeyError("later") from error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory"),
        RuntimeError("/data/gloo/rows.tsv:3: Connection closed by peer"),
        OSError("[/x/gloo/y.cc:1] NCCL"),
        ValueError("not enough values to unpack"),
    ],
)
def test_another_error_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, named_peer_loss():
        raise error
    assert caught.value is error


def test_a_message_for_the_user_stays_one_though_the_network_caused_it() -> None:
    with pytest.raises(UserError, match="port 1"), named_peer_loss():
        raise UserError("port 1 is in use") from dist.DistNetworkError("EADDRINUSE")
