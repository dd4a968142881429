"""A run saved on any number of ranks and any ZeRO stage resumes on any other as if it had never stopped (promise 4).

All pairs of {1, 2 ranks} × ZeRO {0, 1, 2, 3} saving and {1, 2, 3 ranks} × ZeRO {0, 1, 2, 3} resuming, in fp32 and bf16 (stage 0
in fp32 only), from the middle of an epoch past its end. What is loaded equals what was saved to the bit in every pair. The
steps that follow are bit-equal on the same ranks and stage; other stages add the same gradients in another order, even in
straight runs. Every process group goes through all its pairs: starting one costs more than a pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dstrain.cluster.process_group import Ranks
from tests.distributed.ranks import run_ranks
from tests.distributed.saving import resume_optimizer, resume_weights, save_now, saved_dir
from tests.distributed.steps import EOS, PAD, build_config, build_loss, build_rows

NUM_ROWS, BATCH_SIZE = 60, 7
SAVED_STEP, NEXT_STEPS = 4, 7
TOTAL_STEPS = SAVED_STEP + NEXT_STEPS
BF16_RELATIVE = 1e-3
"""Largest relative difference of a loss after these steps in bf16: other partitions add gradients of 8 bits in another order."""

APART = ((0, 1, 2), (3,))
"""Stages that resume in separate processes: after ZeRO-3 a process computes linear layers differently, visibly so in bf16."""
STAGES = {"fp32": (0, 1, 2, 3), "bf16": (1, 2, 3)}


@dataclass(frozen=True)
class Cell:
    """Losses per token and rows of the steps after the save."""

    losses: list[float]
    rows: list[list[int]]


class Tokens:
    """The part of TokenSet that a loader uses."""

    num_rows = NUM_ROWS

    def __init__(self) -> None:
        rows = build_rows(num_rows=NUM_ROWS, seed=5)
        self.source = [source for source, _ in rows].__getitem__
        self.target = [target for _, target in rows].__getitem__
        self.source_lengths = np.array([len(source) for source, _ in rows], dtype=np.int32)
        self.target_lengths = np.array([len(target) for _, target in rows], dtype=np.int32)


def train_steps(ranks: Ranks, engine: Any, *, first: int, last: int) -> Cell:
    """Steps `first` to `last` of the run, from the data position that belongs to `first`."""
    from dstrain.data.cuts import Cut
    from dstrain.data.loader import Loader
    from dstrain.data.plan import Plan, Position

    tokens: Any = Tokens()
    plan = Plan(
        tokens.source_lengths,
        tokens.target_lengths,
        fingerprint="rows",
        seed=1,
        batch_size=BATCH_SIZE,
        batch_unit="sequences",
        cut=Cut(micro_batch_tokens=80, min_micro_batches=3),
    )
    loader = Loader(
        tokens,
        plan,
        rank=ranks.rank,
        world_size=ranks.world_size,
        pad_id=PAD,
        decoder_start_id=EOS,
        prefetch_steps=1,
    )
    position = Position(*divmod(first - 1, plan.num_steps(0)))
    losses, rows = [], []
    for step in range(first, last + 1):
        batch = loader.load_step(position)
        result = engine.step(batch, step=step)
        losses.append(ranks.sum([float(result.loss_sum)])[0] / batch.target_tokens)
        mine = [row for part in batch.micro_batches if part.weight for row in part.rows.tolist()]
        gathered = ranks.broadcast(ranks.gather(mine, Any), Any)
        rows.append(sorted(row for part in gathered for row in part))
        position = batch.plan.next_position
    return Cell(losses, rows)


def build(ranks: Ranks, *, precision: str, stage: int, saved: Path | None) -> Any:
    """An engine, from a checkpoint if there is one."""
    from dstrain.engine.build import build_engine

    config = build_config(precision=precision, machine__zero_stage=stage, training__max_steps=TOTAL_STEPS)
    module = build_loss("m2m100", dropout=0.1, num_layers=1)
    if saved is not None:
        resume_weights(saved, module=module)
    engine = build_engine(config, module=module, ranks=ranks, total_steps=TOTAL_STEPS)
    if saved is not None:
        resume_optimizer(saved, engine=engine)
    return engine


def save_and_continue(ranks: Ranks, root: str, precision: str) -> dict[int, Cell]:
    """Losses and rows of an uninterrupted run of each stage after its save."""
    cells = {}
    for stage in STAGES[precision]:
        engine = build(ranks, precision=precision, stage=stage, saved=None)
        train_steps(ranks, engine, first=1, last=SAVED_STEP)
        save_now(place(root, ranks.world_size, stage), engine=engine, step=SAVED_STEP, ranks=ranks)
        cells[stage] = train_steps(ranks, engine, first=SAVED_STEP + 1, last=TOTAL_STEPS)
    return cells


def resume_all(ranks: Ranks, root: str, precision: str, stages: Sequence[int]) -> dict[tuple[int, int, int], Cell]:
    """Losses and rows of each of `stages` from each checkpoint, by (ranks and stage that saved, stage)."""
    cells = {}
    for world_size in (1, 2):
        for saved_stage in STAGES[precision]:
            saved = saved_dir(place(root, world_size, saved_stage), step=SAVED_STEP)
            for stage in set(stages) & set(STAGES[precision]):
                engine = build(ranks, precision=precision, stage=stage, saved=saved)
                assert_holds(engine, saved)
                cells[world_size, saved_stage, stage] = train_steps(
                    ranks, engine, first=SAVED_STEP + 1, last=TOTAL_STEPS
                )
    return cells


def assert_holds(engine: Any, saved: Path) -> None:
    """Check every master and moment on this rank against the files, which are read without the code under test."""
    from dstrain.engine.shards import owned_shards

    whole: dict[str, dict[int, torch.Tensor]] = {}
    for path in saved.glob("*.safetensors"):
        for key, tensor in load_file(path).items():
            name, _, start = key.rpartition("@")
            whole.setdefault(name, {})[int(start)] = tensor
    flat = {name: torch.cat([parts[start] for start in sorted(parts)]) for name, parts in whole.items()}
    for piece in owned_shards(engine.wrapped, moments=engine.moments):
        for kind, tensor in {"master": piece.master, **piece.moments}.items():
            saved_piece = flat[f"{kind}/{piece.name}"][piece.start : piece.start + piece.numel]
            assert torch.equal(tensor.detach(), saved_piece), (kind, piece.name)


def place(root: str, world_size: int, stage: int) -> Path:
    return Path(root) / f"{world_size}-ranks-zero-{stage}"


def largest_difference(given: Sequence[float], wanted: Sequence[float]) -> float:
    """The largest relative difference over all steps."""
    return max(abs(a - b) / abs(b) for a, b in zip(given, wanted, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_resumes_with_every_pair_of_ranks_and_stages(tmp_path: Path, precision: str) -> None:
    root = str(tmp_path)
    straight = {size: run_ranks(save_and_continue, root, precision, world_size=size)[0] for size in (1, 2)}
    found: dict[tuple[int, int, int, int], float] = {}
    for size, stages in product((1, 2, 3), APART):
        cells = run_ranks(resume_all, root, precision, stages, world_size=size)[0]
        for (saved_size, saved_stage, stage), cell in cells.items():
            wanted = straight[saved_size][saved_stage]
            assert cell.rows == wanted.rows
            found[saved_size, saved_stage, size, stage] = largest_difference(cell.losses, wanted.losses)
    print_matrix(found, precision=precision)
    assert len(found) == 2 * 3 * len(STAGES[precision]) ** 2
    same = {key: value for key, value in found.items() if key[:2] == key[2:]}
    assert same == dict.fromkeys(same, 0.0)
    assert max(found.values()) <= (1e-6 if precision == "fp32" else BF16_RELATIVE)


def print_matrix(found: dict[tuple[int, int, int, int], float], *, precision: str) -> None:
    """The table for `pytest -s`: a row per saving run, a column per resuming run, largest relative difference of a loss."""
    saved = sorted({key[:2] for key in found})
    gone_on = sorted({key[2:] for key in found})
    print(f"\n{precision:<16}" + "".join(f"{size} ranks Z{stage} " for size, stage in gone_on))
    for size, stage in saved:
        cells = "".join(f"{found[size, stage, *column]:>10.1e} " for column in gone_on)
        print(f"{size} ranks ZeRO-{stage}  {cells}")


def test_the_rows_after_the_save_are_those_of_the_plan_and_cross_an_epoch(tmp_path: Path) -> None:
    straight = run_ranks(save_and_continue, str(tmp_path), "fp32", world_size=1)[0][0]
    first_epoch = straight.rows[: -(-NUM_ROWS // BATCH_SIZE) - SAVED_STEP]
    assert len(straight.rows) > len(first_epoch)
    assert len({row for step in first_epoch for row in step}) == NUM_ROWS - SAVED_STEP * BATCH_SIZE
