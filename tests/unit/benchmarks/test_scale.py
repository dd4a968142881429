"""Hundreds of ranks and very many rows: each row once, memory of a window, and a run folder that stays small."""

import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrain.data.arrays import Lengths, Rows
from dstrain.data.cuts import Cut, cut_step, padded_tokens
from dstrain.data.plan import FILLER, WINDOW_ROWS, Plan, Position, deal
from dstrain.data.tokens import TokenSet, load_token_set
from tests.benchmarks.scale import Unit, build_loader, build_plan, share_step, write_token_set
from tests.benchmarks.scale_run import KEEP_LAST, Folder, crossed, write_run

NUM_RANKS = 512
NUM_ROWS = 5_000_000


class Counted(np.ndarray[Any, Any]):
    """Lengths that remember how many of them were looked at."""

    num_read: int

    def __getitem__(self, index: Any) -> Any:
        found = np.asarray(super().__getitem__(index))
        self.num_read += found.size
        return found


def count_reads(num_rows: int) -> Counted:
    lengths = np.broadcast_to(np.int32(20), (num_rows,)).view(Counted)
    lengths.num_read = 0
    return lengths


def plan_tokens(lengths: Lengths, **changes: Any) -> Plan:
    settings: dict[str, Any] = {
        "fingerprint": "data",
        "seed": 1,
        "batch_size": 200,
        "batch_unit": "target_tokens",
        "cut": Cut(4096),
    }
    return Plan(lengths, lengths, **settings | changes)


def meet(num_ranks: int, action: Callable[[int, Callable[[Any], list[Any]]], Any]) -> list[Any]:
    """What every rank returns; each is a thread that is given its number and an exchange with the others."""
    barrier, box = Barrier(num_ranks), [None] * num_ranks

    def exchange(rank: int, value: Any) -> list[Any]:
        box[rank] = value
        barrier.wait(timeout=30)
        return list(box)

    with ThreadPoolExecutor(num_ranks) as pool:
        return list(pool.map(lambda rank: action(rank, lambda value: exchange(rank, value)), range(num_ranks)))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenSet]:
    folder = tmp_path_factory.mktemp("scale") / "tokens"
    write_token_set(folder, num_rows=NUM_ROWS)
    yield load_token_set(folder)
    for path in folder.iterdir():
        path.unlink()


def test_every_row_of_an_epoch_reaches_one_of_512_ranks_once(tokens: TokenSet) -> None:
    plan = build_plan(tokens, unit="target_tokens", batch_size=2_097_152, num_rows=3 * WINDOW_ROWS + 1)
    times = np.zeros(plan.num_rows, dtype=np.uint8)
    num_steps = plan.num_steps(0)
    for step in range(num_steps):
        times[share_step(plan, Position(0, step), num_ranks=NUM_RANKS).rows] += 1
    assert plan.step(Position(0, num_steps - 1)).next_position == Position(1, 0)
    assert times.min() == times.max() == 1


def test_the_loaders_of_512_ranks_hold_each_row_of_a_step_once(tokens: TokenSet) -> None:
    plan = build_plan(tokens, unit="sequences", batch_size=4096)
    batches = [
        build_loader(tokens, plan, rank=rank, num_ranks=NUM_RANKS).load_step(Position(0, 7))
        for rank in range(NUM_RANKS)
    ]
    real = [part for batch in batches for part in batch.micro_batches if part.weight]
    assert len({len(batch.micro_batches) for batch in batches}) == 1
    assert sorted(np.concatenate([part.rows for part in real])) == sorted(plan.step(Position(0, 7)).rows)
    assert sum(int(tokens.target_lengths[row]) for part in real for row in part.rows) == batches[0].target_tokens
    assert sum(part.labels.numel() for part in real) == batches[0].padded_target_tokens
    assert sum(part.source_ids.numel() for part in real) == batches[0].padded_source_tokens


@pytest.mark.parametrize(("unit", "batch_size"), [("sequences", 32_768), ("target_tokens", 1_048_576)])
def test_a_rank_needs_memory_for_a_window_and_not_for_the_data(tokens: TokenSet, unit: Unit, batch_size: int) -> None:
    tracemalloc.start()
    try:
        plan = build_plan(tokens, unit=unit, batch_size=batch_size)
        loader = build_loader(tokens, plan, rank=0, num_ranks=NUM_RANKS)
        for step in (0, 1, plan.num_steps(0) // 2):
            loader.load_step(Position(0, step))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # one side's lengths are 4 bytes a row
    assert peak < 16 * 4 * WINDOW_ROWS < 4 * NUM_ROWS


def test_the_first_step_of_target_tokens_looks_at_one_window_of_a_billion_rows() -> None:
    lengths = count_reads(10**9)
    plan = plan_tokens(lengths)
    step = plan.step(Position(0, 0))
    window_rows = 10**9 // -(-(10**9) // WINDOW_ROWS)
    assert lengths.num_read == 2 * (window_rows + len(step.rows))
    assert plan.step(step.next_position).next_position == Position(0, 2)
    assert plan.epoch_at(Position(0, 1)) == pytest.approx(10 / 10**9, rel=1e-3)
    assert lengths.num_read == 2 * (window_rows + 2 * len(step.rows))


def test_the_end_of_a_window_is_told_without_looking_into_the_next() -> None:
    lengths = count_reads(10_000)
    plan = plan_tokens(lengths, window_rows=500)
    plan.step(Position(0, 49))
    before = lengths.num_read
    assert plan.epoch_at(Position(0, 50)) == pytest.approx(0.05, rel=1e-12)
    assert lengths.num_read == before


def test_an_epoch_of_many_windows_passes_evenly_and_ends_whole() -> None:
    lengths = np.asarray([index % 19 + 1 for index in range(2000)], dtype=np.int32)
    plan = plan_tokens(lengths, batch_size=40, window_rows=300)
    passed = [plan.epoch_at(Position(3, step)) for step in range(plan.num_steps(3))]
    rows = np.cumsum([0, *(len(plan.step(Position(3, step)).rows) for step in range(plan.num_steps(3)))])
    # within a window by steps, of which some have many short rows: exact at its ends
    assert passed == pytest.approx((3 + rows[:-1] / 2000).tolist(), abs=0.03)
    assert passed == sorted(set(passed))
    assert (passed[0], plan.epoch_at(Position(4, 0))) == (3.0, 4.0)


def test_ranks_that_count_an_epoch_together_know_what_one_counts_alone() -> None:
    lengths = np.asarray([index % 19 + 1 for index in range(2000)], dtype=np.int32)
    alone = plan_tokens(lengths, batch_size=40, window_rows=130)
    plans = [plan_tokens(lengths, batch_size=40, window_rows=130) for _ in range(5)]
    meet(5, lambda rank, exchange: plans[rank].count_together([0, 2], rank=rank, world_size=5, exchange=exchange))
    for plan in plans:
        for epoch in (2, 0, 1):
            assert plan.num_steps(epoch) == alone.num_steps(epoch)
            for step in reversed(range(alone.num_steps(epoch))):
                assert plan.step(Position(epoch, step)).rows.tolist() == alone.step(Position(epoch, step)).rows.tolist()


def test_each_rank_counts_its_part_of_the_windows_alone() -> None:
    lengths = [count_reads(10_000) for _ in range(4)]
    plans = [plan_tokens(each, window_rows=500) for each in lengths]
    meet(4, lambda rank, exchange: plans[rank].count_together([1], rank=rank, world_size=4, exchange=exchange))
    assert [plan.num_steps(1) for plan in plans] == [1000] * 4
    assert [each.num_read for each in lengths] == [2 * 2500] * 4


def test_more_ranks_than_windows_count_together_too() -> None:
    plans = [plan_tokens(count_reads(100), window_rows=50) for _ in range(3)]
    meet(3, lambda rank, exchange: plans[rank].count_together([0], rank=rank, world_size=3, exchange=exchange))
    assert [plan.num_steps(0) for plan in plans] == [10] * 3


def test_steps_of_sequences_are_known_without_a_count() -> None:
    lengths = count_reads(100)

    def refuse(mine: list[Rows]) -> list[list[Rows]]:
        raise AssertionError(mine)

    plan = plan_tokens(lengths, batch_unit="sequences", batch_size=10)
    plan.count_together([0], rank=0, world_size=2, exchange=refuse)
    assert (plan.num_steps(0), lengths.num_read) == (10, 0)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=80), st.integers(1, 20))
def test_a_micro_batch_goes_to_the_least_loaded_rank_that_has_room(costs: list[int], num_ranks: int) -> None:
    room, loads = -(-len(costs) // num_ranks), [0] * num_ranks
    expected: list[list[int]] = [[] for _ in range(num_ranks)]
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):  # the rule in its plainest words
        rank = min((rank for rank in range(num_ranks) if len(expected[rank]) < room), key=lambda rank: loads[rank])
        expected[rank].append(index)
        loads[rank] += costs[index]
    dealt = deal(costs, world_size=num_ranks)
    assert [[index for index in mine if index != FILLER] for mine in dealt] == expected


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(1, 40))
def test_the_first_of_the_heaviest_micro_batches_is_halved(lengths: list[int], num_pieces: int) -> None:
    sides = np.asarray(lengths), np.asarray(lengths[::-1])
    expected = cut_step(*sides, cut=Cut(400))
    while len(expected) < min(num_pieces, len(lengths)):  # the rule in its plainest words
        costs = [padded_tokens(*(side[piece] for side in sides)) if len(piece) > 1 else 0 for piece in expected]
        heaviest = costs.index(max(costs))
        expected[heaviest : heaviest + 1] = np.array_split(expected[heaviest], 2)
    expected.sort(key=lambda piece: -sum(side[piece].max() for side in sides))
    pieces = cut_step(*sides, cut=Cut(400, min_micro_batches=num_pieces))
    assert [piece.tolist() for piece in pieces] == [piece.tolist() for piece in expected]


def test_nothing_in_a_run_folder_grows_with_ranks_times_steps(tmp_path: Path) -> None:
    def write(num_ranks: int, num_steps: int) -> Folder:
        return write_run(tmp_path / f"{num_ranks}-{num_steps}", num_ranks=num_ranks, num_steps=num_steps)

    folders = {(ranks, steps): write(ranks, steps) for ranks in (8, NUM_RANKS) for steps in (10, 100)}
    for folder in folders.values():
        assert folder.checkpoint_files == 2 * folder.num_ranks + 2
        assert folder.num_checkpoints == KEEP_LAST
    assert crossed(folders, "num_files") == crossed(folders, "num_bytes") == 0
    # config, run.json, metrics, outcome and lease; a record and a file for stacks a rank
    few, many = folders[8, 10], folders[NUM_RANKS, 100]
    assert many.num_files == 5 + 2 * NUM_RANKS + KEEP_LAST * (2 * NUM_RANKS + 2)
    assert folders[8, 100].num_files == few.num_files
    # rows of the log are all that grows with steps
    assert 0 < folders[8, 100].num_bytes - few.num_bytes < 18 * 1024


def test_what_grows_with_ranks_times_steps_is_found() -> None:
    def folder(num_ranks: int, num_steps: int) -> Folder:
        return Folder(num_ranks, num_steps, 3 + num_ranks * num_steps, 7 * num_ranks + 5 * num_steps, 1, 2, {})

    folders = {(ranks, steps): folder(ranks, steps) for ranks in (2, 4) for steps in (10, 30)}
    assert crossed(folders, "num_files") == 2 * 20
    assert crossed(folders, "num_bytes") == 0
