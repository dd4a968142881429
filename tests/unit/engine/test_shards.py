"""How a parameter that every rank owns is divided for writing."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dstrain.engine.shards import Shard, split_shard, trained_parameters


@given(numel=st.integers(0, 200), world_size=st.integers(1, 40), start=st.integers(0, 1000))
def test_the_shares_of_all_ranks_tile_a_shard_exactly(numel: int, world_size: int, start: int) -> None:
    master = torch.arange(numel, dtype=torch.float32)
    whole = Shard("w", start, numel, master, {"exp_avg": master + 0.5})
    shares = [split_shard(whole, rank=rank, world_size=world_size) for rank in range(world_size)]
    covered = [start + i for start, n in ((share.start, share.numel) for share in shares) for i in range(n)]
    assert covered == list(range(start, start + numel))
    assert torch.cat([share.master for share in shares]).equal(master)
    assert torch.cat([share.moments["exp_avg"] for share in shares]).equal(master + 0.5)
    for share in shares:
        assert share.name == "w"
        assert share.numel == share.master.numel() == share.moments["exp_avg"].numel()


def test_a_share_is_a_view_of_the_live_tensors() -> None:
    master = torch.zeros(4)
    split_shard(Shard("w", 0, 4, master, {}), rank=1, world_size=2).master.fill_(1.0)
    assert master.tolist() == [0.0, 0.0, 1.0, 1.0]


class Wrapped(nn.Module):
    """A loss module around a model with tied and frozen weights."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.shared = nn.Embedding(3, 2)
        self.model.head = nn.Linear(2, 3)
        self.model.head.weight = self.model.shared.weight
        self.model.frozen = nn.Linear(2, 2, bias=False).requires_grad_(False)


def test_trained_parameters_are_named_as_in_the_model_and_tied_ones_come_once() -> None:
    assert [name for name, _ in trained_parameters(Wrapped())] == ["shared.weight", "head.bias"]
    assert [name for name, _ in trained_parameters(Wrapped().model)] == ["shared.weight", "head.bias"]
