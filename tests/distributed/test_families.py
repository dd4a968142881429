"""One step of every family that is only fine-tuned: the weights of a plain PyTorch loop over the stock model's loss."""

from typing import Any

import pytest

from dstrain.cluster.process_group import Ranks
from tests.distributed.ranks import run_ranks
from tests.distributed.steps import TOTAL_STEPS, VOCABULARY, build_batch, build_config, build_rows, plain_loop
from tests.unit.models.stock_families import STOCK_FAMILIES, build_stock_model

SIZES = (5, 8, 3)


def attend_to_first(model: Any, arguments: Any, given: dict[str, Any]) -> Any:
    """A hook on LED: what a user of the stock model passes for summarisation."""
    mask = given["input_ids"].new_zeros(given["input_ids"].shape)
    mask[:, 0] = 1
    return arguments, given | {"global_attention_mask": mask}


def compare_steps(ranks: Ranks, stage: int) -> dict[str, tuple[float, float, float]]:
    """By family the relative difference of loss and gradient norm, and the largest one of any weight."""
    from dstrain.engine.build import build_engine
    from dstrain.models.families import decoder_start_id
    from dstrain.models.loss import Seq2SeqLoss

    # with a large epsilon a gradient of nearly 0, whose sign is chance, moves its weight by nearly nothing
    changes = {"training__warmup_steps": 0, "training__epsilon": 1e-3}
    config = build_config(machine__zero_stage=stage, machine__device="cpu", **changes)
    rows, found = build_rows(), {}
    for family in STOCK_FAMILIES:
        plain = build_stock_model(family, num_rows=VOCABULARY)
        start: Any = decoder_start_id(plain)
        if family == "led":
            plain.register_forward_pre_hook(attend_to_first, with_kwargs=True)
        (loss,), (norm,), weights = plain_loop(plain, rows=rows, sizes=SIZES, config=config, steps=1, start=start)
        module = Seq2SeqLoss(build_stock_model(family, num_rows=VOCABULARY))
        engine = build_engine(config, module=module, ranks=ranks, total_steps=TOTAL_STEPS)
        batch = build_batch(rows, sizes=SIZES, rank=ranks.rank, world_size=ranks.world_size, start=start)
        result = engine.step(batch, step=1)
        ours = ranks.sum([float(result.loss_sum)])[0] / batch.target_tokens
        with engine.gathered() as model:
            differences = [float((value - weights[name]).abs().max()) for name, value in model.named_parameters()]
            before = dict(build_stock_model(family, num_rows=VOCABULARY).named_parameters())
            moved = max(float((value - before[name]).abs().max()) for name, value in model.named_parameters())
        assert moved > 5e-4, family
        found[family] = (abs(ours / loss - 1), abs(float(result.grad_norm) / norm - 1), max(differences))
    return found


@pytest.mark.parametrize(("world_size", "stage"), [(1, 1), (2, 3)])
def test_a_step_is_that_of_a_plain_loop_over_the_stock_loss(world_size: int, stage: int) -> None:
    for found in run_ranks(compare_steps, stage, world_size=world_size):
        assert found.keys() == set(STOCK_FAMILIES)
        for family, (loss, norm, weights) in found.items():
            print(f"{family:16} loss {loss:.1e}, gradient norm {norm:.1e}, weights {weights:.1e}")
            assert loss < 1e-5, family
            assert norm < 1e-4, family
            assert weights < 1e-5, family
