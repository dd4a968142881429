"""LoRA with new tokens learns the same on every rank count, ZeRO stage and precision, as a plain PyTorch loop does.

`pytest -s` prints the table.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from dstrain.cluster.process_group import Ranks
from tests.distributed.ranks import RankFailed, run_ranks
from tests.distributed.saving import resume_optimizer, resume_weights, save_now
from tests.distributed.steps import (
    EOS,
    PAD,
    TOTAL_STEPS,
    build_batch,
    build_config,
    build_model,
    build_rows,
    plain_loop,
)

SIZES = [3, 1, 4, 2, 6]
NEW_IDS = [60, 61, 90]
STEPS, SAVED_STEP = 6, 3
MODEL = {"name": "x", "adapter": {"rank": 4, "alpha": 8.0, "dropout": 0.1, "targets": "all"}}
APART = ((("fp32", 0), ("fp32", 1), ("fp32", 2), ("bf16", 1)), (("fp32", 3), ("bf16", 3)))
"""Precisions and stages by the processes that train them: after ZeRO-3 a process computes linear layers differently."""
START = {"m2m100": EOS, "mt5": PAD}
Cell = tuple[str, int]
"""Precision and ZeRO stage."""
EXACTNESS = {"fp32": 1e-5, "bf16": 2e-3}


def build_adapted(kind: str) -> Any:
    """A model of which an adapter and the rows of three tokens are trained; mT5 with a head of its own."""
    from dstrain.models.partial import train_part

    model = build_model(kind, dropout=0.1)
    if kind == "mt5":
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().flip(0))
    train_part(model, section=build_config(model=MODEL).model, new_ids=NEW_IDS, seed=7)
    return model


def train_cell(ranks: Ranks, kind: str, precision: str, stage: int, folder: str) -> dict[str, Any]:
    """Losses per token; those after a resume; how many elements this rank owns; and the merged weights, for rank 0."""
    from dstrain.checkpoint.state import _shards_to_write
    from dstrain.engine.build import build_engine
    from dstrain.models.loss import Seq2SeqLoss
    from dstrain.models.partial import count_trained

    config = build_config(model=MODEL, precision=precision, machine__zero_stage=stage)

    def build(saved: Path | None) -> Any:
        module = Seq2SeqLoss(build_adapted(kind))
        if saved is not None:
            resume_weights(saved, module=module)
        engine = build_engine(config, module=module, ranks=ranks, total_steps=TOTAL_STEPS)
        if saved is not None:
            resume_optimizer(saved, engine=engine)
        return engine

    def steps(engine: Any, first: int, last: int) -> list[float]:
        losses = []
        for step in range(first, last + 1):
            batch = build_batch(
                build_rows(), sizes=SIZES, rank=ranks.rank, world_size=ranks.world_size, start=START[kind]
            )
            result = engine.step(batch, step=step)
            losses.append(ranks.sum([float(result.loss_sum)])[0] / batch.target_tokens)
        return losses

    engine = build(None)
    losses = steps(engine, 1, SAVED_STEP)
    saved = save_now(Path(folder), engine=engine, step=SAVED_STEP, ranks=ranks)
    losses += steps(engine, SAVED_STEP + 1, STEPS)
    owned = sum(shard.numel for shard in _shards_to_write(engine, ranks=ranks))
    with engine.gathered() as model:
        weights = {name: value.detach().float().clone().numpy() for name, value in model.named_parameters()}
        names = sorted(model.state_dict())
    again = steps(build(saved), SAVED_STEP + 1, STEPS)
    return {
        "losses": losses,
        "again": again,
        "owned": int(ranks.sum([owned])[0]),
        "trained": count_trained(engine.module.model),
        "weights": weights,
        "names": names,
    }


def train_cells(ranks: Ranks, kind: str, cells: Sequence[Cell], folder: str) -> dict[Cell, dict[str, Any]]:
    return {
        cell: train_cell(ranks, kind, *cell, str(Path(folder) / "-".join(map(str, (*cell, ranks.world_size)))))
        for cell in cells
    }


@pytest.mark.parametrize("kind", ["m2m100", "mt5"])
def test_losses_and_merged_weights_are_the_same_in_every_cell(kind: str, tmp_path: Path) -> None:
    from dstrain.models.partial import make_plain

    reference = build_adapted(kind)
    expected, _, _ = plain_loop(
        reference, rows=build_rows(), sizes=SIZES, config=build_config(), steps=STEPS, start=START[kind]
    )
    make_plain(reference)
    groups = [*product((1, 2), APART)] if kind == "m2m100" else [(1, APART[0][:1]), (2, APART[1])]
    cells = {
        (*cell, world_size): found
        for world_size, group in groups
        for cell, found in run_ranks(train_cells, kind, group, str(tmp_path), world_size=world_size)[0].items()
    }
    print(f"\n{kind:<8} plain PyTorch    {' '.join(f'{loss:.5f}' for loss in expected)}")
    for (precision, stage, world_size), found in sorted(
        cells.items(), key=lambda each: (each[0][0] == "bf16", *each[0])
    ):
        shown = f"{' '.join(f'{loss:.5f}' for loss in found['losses'])}  owned {found['owned']} of {found['trained']}"
        print(f"{precision} ZeRO-{stage} {world_size} ranks  {shown}")
        assert found["losses"] == pytest.approx(expected, rel=EXACTNESS[precision])
        assert found["owned"] == found["trained"]
        assert found["again"] == found["losses"][SAVED_STEP:]
        assert found["names"] == sorted(reference.state_dict())
        if precision == "fp32":
            for name, parameter in reference.named_parameters():
                torch.testing.assert_close(
                    torch.from_numpy(found["weights"][name]), parameter.detach(), rtol=1e-4, atol=1e-5, msg=name
                )


def train_idle(ranks: Ranks, stage: int) -> None:
    """A step with a parameter that the loss does not depend on."""
    from dstrain.engine.build import build_engine
    from dstrain.models.loss import Seq2SeqLoss

    model = build_adapted("m2m100")
    model.idle = torch.nn.Linear(2, 2, bias=False)
    config = build_config(model=MODEL, machine__zero_stage=stage)
    engine = build_engine(config, module=Seq2SeqLoss(model), ranks=ranks, total_steps=TOTAL_STEPS)
    engine.step(build_batch(build_rows(), sizes=SIZES, rank=ranks.rank, world_size=ranks.world_size), step=1)


@pytest.mark.parametrize(("world_size", "stage"), [(1, 0), (2, 2), (2, 3)])
def test_a_trained_parameter_without_a_gradient_ends_the_run_in_its_first_step(world_size: int, stage: int) -> None:
    with pytest.raises(
        RankFailed, match=r"trained parameters have no gradient in the first step, 1 in all, `idle\.weight` first"
    ):
        run_ranks(train_idle, stage, world_size=world_size)
