"""The loader: the same step on any number of ranks, and a thread that neither hides a fault nor outlives its use."""

import threading
import traceback
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import pytest
import torch

from dstrain.data.cuts import Cut
from dstrain.data.loader import Loader, StepBatch
from dstrain.data.plan import Plan, Position
from dstrain.data.tokens import TokenSet

LENGTHS = [(row * 5 % 11 + 2, row * 3 % 7 + 2) for row in range(45)]
BuildTokens = Callable[[Sequence[tuple[int, int]]], TokenSet]


def _plan(tokens: TokenSet, **changes: Any) -> Plan:
    settings: dict[str, Any] = {"batch_size": 14, "batch_unit": "sequences", "cut": Cut(micro_batch_tokens=60)}
    lengths = (tokens.source_lengths, tokens.target_lengths)
    return Plan(*lengths, fingerprint=tokens.fingerprint, seed=1, **{**settings, **changes})


def _loader(tokens: TokenSet, plan: Plan, *, rank: int = 0, world_size: int = 1, **changes: Any) -> Loader:
    settings: dict[str, Any] = {"pad_id": 0, "decoder_start_id": 2, "prefetch_steps": 2}
    return Loader(tokens, plan, rank=rank, world_size=world_size, **{**settings, **changes})


def _take(loader: Loader, count: int, *, position: Position | None = None) -> list[StepBatch]:
    steps = loader.iterate_from(position or Position(0, 0))
    taken = list(islice(steps, count))
    steps.close()
    return taken


def _loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dstrain-loader"]


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_all_ranks_together_compute_what_one_rank_computes(build_tokens: BuildTokens, world_size: int) -> None:
    tokens = build_tokens(LENGTHS)
    plan = _plan(tokens)
    alone = _take(_loader(tokens, plan), 5)
    ranks = [_take(_loader(tokens, plan, rank=rank, world_size=world_size), 5) for rank in range(world_size)]
    for step, expected in enumerate(alone):
        shares = [rank[step] for rank in ranks]
        assert len({len(share.micro_batches) for share in shares}) == 1
        real = {batch.index: batch for share in shares for batch in share.micro_batches if batch.weight}
        assert len(real) == len(expected.micro_batches)
        for batch in expected.micro_batches:
            for name in ("source_ids", "source_mask", "decoder_ids", "labels"):
                assert torch.equal(getattr(batch, name), getattr(real[batch.index], name))
        counts = {(share.target_tokens, share.source_tokens, share.padded_target_tokens) for share in shares}
        assert counts == {(expected.target_tokens, expected.source_tokens, expected.padded_target_tokens)}


def test_for_a_gpu_memory_is_pinned_ahead_in_a_thread_that_knows_which(
    build_tokens: BuildTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        done.append(f"pin in {threading.current_thread().name}")
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(f"set {device}"))
    tokens = build_tokens(LENGTHS)
    plan = _plan(tokens)
    pinned = _take(_loader(tokens, plan, device=torch.device("cuda", 3)), 2)
    assert done[:2] == ["set cuda:3", "pin in dstrain-loader"]
    assert {*done[1:]} == {"pin in dstrain-loader"}
    for found, expected in zip(pinned, _take(_loader(tokens, plan), 2), strict=True):
        for mine, other in zip(found.micro_batches, expected.micro_batches, strict=True):
            assert torch.equal(mine.labels, other.labels)
            assert torch.equal(mine.source_ids, other.source_ids)


def test_the_counts_of_tokens_are_those_of_the_tensors(build_tokens: BuildTokens) -> None:
    tokens = build_tokens(LENGTHS)
    for step in _take(_loader(tokens, _plan(tokens)), 4):
        assert step.target_tokens == sum(int((batch.labels != -100).sum()) for batch in step.micro_batches)
        assert step.source_tokens == sum(int(batch.source_mask.sum()) for batch in step.micro_batches)
        assert step.padded_source_tokens == sum(batch.source_ids.numel() for batch in step.micro_batches)
        assert step.padded_target_tokens == sum(batch.labels.numel() for batch in step.micro_batches)


def test_every_micro_batch_holds_the_rows_that_were_planned(build_tokens: BuildTokens) -> None:
    tokens = build_tokens(LENGTHS)
    step = _loader(tokens, _plan(tokens)).load_step(Position(1, 2))
    for batch in step.micro_batches:
        for place, row in enumerate(step.plan.micro_batches[batch.index]):
            assert batch.source_ids[place][batch.source_mask[place] == 1].tolist() == tokens.source(row).tolist()
            assert batch.labels[place][batch.labels[place] != -100].tolist() == tokens.target(row).tolist()


def test_a_rank_without_work_gets_a_real_row_of_no_weight(build_tokens: BuildTokens) -> None:
    tokens = build_tokens([(3, 3)] * 4)
    plan = _plan(tokens, cut=Cut(micro_batch_tokens=1000))
    (filler,) = _loader(tokens, plan, rank=1, world_size=2).load_step(Position(0, 0)).micro_batches
    assert (filler.weight, filler.index, len(filler.labels)) == (0.0, 0, 1)
    assert (filler.labels != -100).any()


def test_steps_continue_over_the_end_of_an_epoch(build_tokens: BuildTokens) -> None:
    tokens = build_tokens(LENGTHS)
    taken = _take(_loader(tokens, _plan(tokens)), 9)
    positions = [step.plan.position for step in taken]
    assert positions == [Position(epoch, step) for epoch in range(3) for step in range(4)][:9]


def test_a_later_position_has_the_same_steps_as_going_through(build_tokens: BuildTokens) -> None:
    tokens = build_tokens(LENGTHS)
    straight = _take(_loader(tokens, _plan(tokens)), 7)
    resumed = _take(_loader(tokens, _plan(tokens)), 2, position=straight[4].plan.next_position)
    for expected, found in zip(straight[5:], resumed, strict=True):
        assert found.plan.rows.tolist() == expected.plan.rows.tolist()
        for one, other in zip(expected.micro_batches, found.micro_batches, strict=True):
            assert torch.equal(one.labels, other.labels)


def test_the_wait_for_a_step_is_measured_with_the_given_clock(build_tokens: BuildTokens) -> None:
    tokens = build_tokens(LENGTHS)
    ticks = iter(range(0, 1000, 3))
    taken = _take(_loader(tokens, _plan(tokens), clock=lambda: float(next(ticks))), 2)
    assert [step.data_seconds for step in taken] == [3.0, 3.0]


def test_a_fault_in_the_thread_is_raised_with_its_own_traceback(build_tokens: BuildTokens) -> None:
    tokens = build_tokens(LENGTHS)

    def break_on_use(row: int) -> Any:
        raise OSError(f"disk is gone at row {row}")

    tokens.target = break_on_use  # type: ignore[method-assign]
    steps = _loader(tokens, _plan(tokens)).iterate_from(Position(0, 0))
    with pytest.raises(OSError, match="disk is gone") as caught:
        next(steps)
    assert "break_on_use" in "".join(traceback.format_tb(caught.value.__traceback__))
    assert _loader_threads() == []


def test_a_position_that_does_not_exist_is_refused(build_tokens: BuildTokens) -> None:
    tokens = build_tokens(LENGTHS)
    with pytest.raises(ValueError, match="epoch 0 has no step 99"):
        next(_loader(tokens, _plan(tokens)).iterate_from(Position(0, 99)))


def test_a_closed_iterator_leaves_no_thread(build_tokens: BuildTokens) -> None:
    tokens = build_tokens(LENGTHS)
    steps = _loader(tokens, _plan(tokens), prefetch_steps=1).iterate_from(Position(0, 0))
    next(steps)
    assert len(_loader_threads()) == 1
    steps.close()
    assert _loader_threads() == []


def test_a_forgotten_iterator_leaves_no_thread(build_tokens: BuildTokens) -> None:
    tokens = build_tokens(LENGTHS)
    steps = _loader(tokens, _plan(tokens)).iterate_from(Position(0, 0))
    next(steps)
    del steps
    assert _loader_threads() == []


def test_no_more_steps_are_collated_ahead_than_requested(build_tokens: BuildTokens) -> None:
    tokens = build_tokens(LENGTHS)
    plan = _plan(tokens)
    planned: list[Position] = []
    plan_step = plan.step

    def record(position: Position) -> Any:
        planned.append(position)
        return plan_step(position)

    plan.step = record  # type: ignore[method-assign]
    taken = _take(_loader(tokens, plan, prefetch_steps=3), 2)
    # Two taken, three waiting, one in the thread's hands.
    assert len(taken) <= len(planned) <= 6


def _rows(step: StepBatch) -> list[list[int]]:
    return [batch.rows.tolist() for batch in step.micro_batches]


def test_micro_batches_say_which_rows_they_hold(build_tokens: BuildTokens) -> None:
    tokens = build_tokens(LENGTHS)
    step = _loader(tokens, _plan(tokens)).load_step(Position(0, 1))
    assert sorted(row for rows in _rows(step) for row in rows) == sorted(step.plan.rows.tolist())


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_excluded_row_is_missed_by_its_own_step_and_by_nothing_else(
    build_tokens: BuildTokens, world_size: int
) -> None:
    tokens = build_tokens(LENGTHS)
    plan = _plan(tokens)
    whole = _take(_loader(tokens, plan), 4)
    unwanted = [int(whole[1].plan.micro_batches[0][1]), int(whole[2].plan.micro_batches[-1][-1])]
    kept: dict[tuple[int, int], list[int]] = {}
    for rank in range(world_size):
        loader = _loader(tokens, plan, rank=rank, world_size=world_size)
        loader.exclude(unwanted[:1])
        loader.exclude(unwanted[1:])
        for number, step in enumerate(_take(loader, 4)):
            assert step.target_tokens == sum(int(tokens.target_lengths[row]) for row in step.plan.rows)
            assert step.source_tokens == sum(int(tokens.source_lengths[row]) for row in step.plan.rows)
            assert not set(unwanted) & {row for rows in _rows(step) for row in rows}  # no filler either
            kept |= {(number, batch.index): batch.rows.tolist() for batch in step.micro_batches if batch.weight}
    assert kept == {
        (number, index): [row for row in piece.tolist() if row not in unwanted]
        for number, step in enumerate(whole)
        for index, piece in enumerate(step.plan.micro_batches)
    }


@pytest.mark.parametrize("emptied", [0, -1])
def test_an_emptied_micro_batch_is_dropped_and_the_others_keep_their_numbers(
    build_tokens: BuildTokens, emptied: int
) -> None:
    tokens = build_tokens(LENGTHS)
    plan = _plan(tokens)
    pieces = dict(enumerate(plan.step(Position(0, 0)).micro_batches))
    num_pieces = len(pieces)
    gone = pieces.pop(emptied % num_pieces)
    found, fillers = {}, []
    for rank in range(num_pieces):
        loader = _loader(tokens, plan, rank=rank, world_size=num_pieces)
        loader.exclude(gone.tolist())
        (batch,) = loader.load_step(Position(0, 0)).micro_batches
        if batch.weight:
            found[batch.index] = batch.rows.tolist()
        else:
            fillers.append((batch.index, batch.rows.tolist()))
    assert found == {index: piece.tolist() for index, piece in pieces.items()}
    assert fillers == [(max(pieces), pieces[max(pieces)][-1:].tolist())]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_step_that_has_lost_all_rows_is_one_of_fillers(build_tokens: BuildTokens, world_size: int) -> None:
    tokens = build_tokens(LENGTHS)
    plan = _plan(tokens)
    unwanted = [0, *plan.step(Position(0, 0)).rows.tolist()]
    for rank in range(world_size):
        loader = _loader(tokens, plan, rank=rank, world_size=world_size)
        loader.exclude(unwanted)
        step, following = _take(loader, 2)
        (filler,) = step.micro_batches
        assert filler.weight == 0.0
        assert not set(filler.rows.tolist()) & set(unwanted)
        assert (step.target_tokens, step.source_tokens, step.padded_target_tokens) == (1, 0, 0)
        assert step.plan.next_position == following.plan.position == Position(0, 1)


def test_excluding_every_row_is_refused(build_tokens: BuildTokens) -> None:
    tokens = build_tokens(LENGTHS)
    loader = _loader(tokens, _plan(tokens))
    loader.exclude(range(len(LENGTHS)))
    with pytest.raises(ValueError, match=r"all 45 rows of data\.train are in quarantine.*quarantine\.jsonl"):
        loader.load_step(Position(0, 0))
