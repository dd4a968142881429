"""The bytes of a model by stage, computed by hand; `tests/distributed/test_memory.py` compares them with real engines."""

from dataclasses import replace

import pytest

from dstrain.forecast.memory import Layout, find_model_memory
from dstrain.forecast.trained import Trained
from dstrain.forecast.weights import Weight

LARGE, SMALL = 1_000_000, 1_000
MODEL = Trained((Weight("a", "encoder", (1000, 1000)), Weight("b", "encoder", (1000,))), num_buffers=10)
LAYOUT = Layout(stage=0, world_size=4, width=4, num_moments=2, bucket_elements=LARGE + SMALL)


def test_stage_0_has_everything_on_every_rank() -> None:
    found = find_model_memory(MODEL, layout=LAYOUT)
    assert found.weights == 4 * (LARGE + SMALL + 10)
    assert found.optimizer == 8 * (LARGE + SMALL)
    assert found.buckets == 4 * (LARGE + SMALL)
    assert found.gradients == 4 * (LARGE + SMALL + LARGE)
    once = find_model_memory(MODEL, layout=replace(LAYOUT, accumulates=False))
    assert once.gradients == 4 * (LARGE + SMALL)


@pytest.mark.parametrize(("stage", "gradients"), [(1, 4.0), (2, 4.0 / 4)])
def test_stages_1_and_2_share_the_optimizer_and_the_gradients(stage: int, gradients: float) -> None:
    found = find_model_memory(MODEL, layout=replace(LAYOUT, stage=stage, width=2))
    assert found.weights == 2 * (LARGE + SMALL + 10)
    assert found.optimizer == pytest.approx(12 * (LARGE + SMALL) / 4, rel=1e-5)
    assert found.gradients == pytest.approx(gradients * (LARGE + SMALL) + 2 * LARGE, rel=1e-5)


def test_stage_3_shares_the_weights_but_keeps_small_ones_whole() -> None:
    found = find_model_memory(MODEL, layout=replace(LAYOUT, stage=3, width=2))
    assert found.weights == 2 * ((LARGE + SMALL) // 4 + SMALL + 10)
    assert found.optimizer == 12 * (LARGE + SMALL) // 4
    assert found.evaluation_gather == found.gather == 2 * LARGE
    assert found.keeps_gradients
    whole = find_model_memory(MODEL, layout=replace(LAYOUT, stage=3, width=2, persistent_elements=0))
    assert whole.evaluation_gather == 2 * (LARGE + SMALL)


def test_gathering_ahead_is_limited_in_training_and_not_in_evaluations() -> None:
    many = Trained(tuple(Weight(f"w{i}", "encoder", (1000, 1000)) for i in range(20)))
    found = find_model_memory(many, layout=replace(LAYOUT, stage=3, prefetched_elements=3 * LARGE))
    assert found.gather == 4 * 4 * LARGE
    assert found.evaluation_gather == 4 * 20 * LARGE


def test_what_is_offloaded_lies_on_the_host() -> None:
    layout = replace(LAYOUT, stage=2, width=2)
    here = find_model_memory(MODEL, layout=layout)
    there = find_model_memory(MODEL, layout=replace(layout, offloads_optimizer=True))
    assert (there.optimizer, here.host) == (0, 0)
    assert there.host > here.optimizer
    assert there.lower_bound < here.lower_bound
    weights = find_model_memory(
        MODEL, layout=replace(layout, stage=3, offloads_optimizer=True, offloads_parameters=True)
    )
    assert weights.weights == 2 * (SMALL + 10)


def test_frozen_parameters_have_no_optimizer() -> None:
    frozen = Trained((replace(MODEL.weights[0], is_trained=False), MODEL.weights[1]))
    for stage in (0, 1, 2, 3):
        found = find_model_memory(frozen, layout=replace(LAYOUT, stage=stage))
        assert 0 < found.optimizer <= 12 * SMALL
        assert found.weights >= 4 * (LARGE // 4)
