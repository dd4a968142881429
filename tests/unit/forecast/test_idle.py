"""Ranks that have no work in a step are told with the way out."""

import pytest

from dstrain.forecast.idle import fewer_machines, idle_warning
from tests.unit.forecast.forecast_cases import on_gpus


@pytest.mark.parametrize(
    ("num_micro_batches", "num_rows", "parts"),
    [
        (2, 16, ("2 micro-batches for 8 ranks: 6 of them are idle", "min_micro_batches=8, in a new run")),
        (2, 5, ("min_micro_batches=5, which leaves 3 idle, in a new run",)),
        (3, 3, ("has only 3 rows: take at most 3 ranks, or raise training.batch_size",)),
        (1, 1, ("1 micro-batch for 8 ranks: 7", "only 1 row:")),
    ],
)
def test_the_way_out_is_one_that_the_rows_of_a_step_allow(
    num_micro_batches: int, num_rows: int, parts: tuple[str, ...]
) -> None:
    warning = idle_warning(num_micro_batches, num_rows=num_rows, world_size=8)
    assert warning is not None
    assert all(part in warning for part in parts)


def test_nothing_is_said_where_every_rank_has_work() -> None:
    assert idle_warning(8, num_rows=16, world_size=8) is None
    assert idle_warning(9, num_rows=16, world_size=8) is None


@pytest.mark.parametrize(("num_ranks", "nodes"), [(1, 1), (8, 1), (9, 2), (16, 2)])
def test_fewer_ranks_take_as_few_nodes_as_hold_them(num_ranks: int, nodes: int) -> None:
    found = fewer_machines(on_gpus(32, nodes=4), num_ranks=num_ranks)
    assert (found.world_size, found.num_nodes, found.gpu) == (num_ranks, nodes, on_gpus(1).gpu)
