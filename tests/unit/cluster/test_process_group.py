"""The exchanges of a rank that is alone. Two real ranks are the business of tests/distributed."""

import torch

from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks


def test_a_rank_that_is_alone_needs_no_process_group() -> None:
    ranks = Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None)
    assert ranks.gather("x") == ["x"]
    assert ranks.broadcast({"a": 1}) == {"a": 1}
    assert ranks.max([3, -1]) == [3, -1]
    assert ranks.sum([0.1, 2.0]) == [0.1, 2.0]
    ranks.barrier()
