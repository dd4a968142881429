"""Operations are those of real matrix products; times follow from them and from a rate."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dstrain.forecast.durations import (
    CPU_RATE,
    Range,
    batch_operations,
    estimate_evaluation,
    estimate_save,
    estimate_step,
    evaluation_operations,
    exactly,
)
from dstrain.forecast.request import Machines
from dstrain.forecast.workload import Batch, Searches, Workload
from dstrain.models.loss import Seq2SeqLoss
from tests.distributed.memory import VOCABULARY, architecture_of, build_config, build_model
from tests.unit.forecast.forecast_cases import ONE_CPU, on_gpus

BATCH = Batch(4, 12, 9, 36)
WORK = Workload(10, 10, 100, ((BATCH, BATCH),), Searches(4, (BATCH,), 20), 2, 2, is_exact=True, origin="here")
OPTIONS: dict[str, Any] = {"precision": "fp32", "stage": 1, "num_trained": 10**6, "recomputes": False}


@pytest.mark.parametrize("family", ["m2m100", "mbart", "t5", "mt5"])
def test_operations_are_those_that_torch_counts(family: str) -> None:
    config = build_config(family)
    module = Seq2SeqLoss(build_model(config)).train()
    ids = torch.randint(3, VOCABULARY, (4, 12))
    labels = torch.randint(3, VOCABULARY, (4, 9))
    with FlopCounterMode(display=False) as counter:
        module(ids, torch.ones_like(ids), labels, labels, 36).backward()
    assert batch_operations(architecture_of(config), BATCH) == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_ranges_divide_by_the_fastest_and_the_slowest() -> None:
    assert exactly(10.0).over(Range(1, 2, 5)) == (2.0, 5.0, 10.0)
    assert Range(1, 2, 3).plus(Range(1, 1, 1)).times(2) == (4, 6, 8)
    assert Range(1, 5, 3).at_least(exactly(2)) == (2, 5, 3)


def step_seconds(machines: Machines, **options: Any) -> Range:
    return estimate_step(architecture_of(build_config("m2m100")), WORK, machines=machines, **(OPTIONS | options))


def test_a_cpus_step_is_operations_over_its_rate() -> None:
    architecture = architecture_of(build_config("m2m100"))
    operations = 2 * batch_operations(architecture, BATCH)
    assert step_seconds(ONE_CPU).likely == pytest.approx(operations / CPU_RATE.likely)
    two = step_seconds(Machines("cpu", None, world_size=2, num_nodes=1, cores=1))
    assert two.likely == pytest.approx(step_seconds(ONE_CPU).likely / 2)


def test_a_small_step_on_a_gpu_waits_for_the_host() -> None:
    one, sharded = step_seconds(on_gpus(1)), step_seconds(on_gpus(1), stage=3)
    assert one.low < one.likely < one.high
    assert sharded.likely > one.likely
    assert step_seconds(on_gpus(1), precision="bf16").likely == pytest.approx(one.likely, rel=0.1)


def test_ranks_exchange_gradients_and_nodes_more_slowly() -> None:
    near, far = step_seconds(on_gpus(8)), step_seconds(on_gpus(8, nodes=2))
    assert far.likely > near.likely


def test_beams_take_longer() -> None:
    architecture = architecture_of(build_config("m2m100"))
    few, many = (evaluation_operations(architecture, WORK, num_beams=beams) for beams in (1, 5))
    assert many > few
    for machines in (ONE_CPU, on_gpus(1)):
        found = estimate_evaluation(architecture, WORK, machines=machines, precision="fp32", num_beams=1)
        assert 0 < found.low < found.likely < found.high
    longer = evaluation_operations(architecture, WORK, num_beams=1, length=20)
    assert longer > few


def test_a_save_in_the_background_stands_still_for_its_copy_only() -> None:
    copied, written = (
        estimate_save(num_bytes=10**9, world_size=2, in_background=is_apart) for is_apart in (True, False)
    )
    assert copied.likely < written.likely
    assert written.likely == 1.0
