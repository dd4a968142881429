"""The token-weighted mean of the loss over steps, ranks and a restart."""

import json
from dataclasses import dataclass

import pytest
import torch

from dstrain.training.meters import LossMeter
from tests.unit.training.training_cases import alone

STEPS = [(30.0, 10), (5.0, 40), (1.5, 1)]


@dataclass
class Peers:
    """One of two ranks, whose peer has summed `theirs`."""

    rank: int
    theirs: float = 0.0

    def sum(self, values: list[float]) -> list[float]:
        return [values[0] + self.theirs]


def add(meter: LossMeter, steps: list[tuple[float, int]]) -> LossMeter:
    for loss_sum, num_tokens in steps:
        meter.add(torch.tensor(loss_sum), num_tokens=num_tokens)
    return meter


def test_the_mean_is_over_tokens_and_not_over_steps() -> None:
    assert add(LossMeter(alone()), STEPS).mean() == pytest.approx(36.5 / 51)


def test_the_mean_of_an_empty_meter_is_zero() -> None:
    assert LossMeter(alone()).mean() == 0.0


def test_a_reset_removes_all_sums() -> None:
    meter = add(LossMeter(alone()), STEPS)
    meter.reset()
    assert add(meter, [(4.0, 2)]).mean() == 2.0


def test_the_sums_of_all_ranks_are_divided_by_all_tokens_of_the_step() -> None:
    meter = LossMeter(Peers(rank=0, theirs=7.0))  # type: ignore[arg-type]
    meter.add(torch.tensor(3.0), num_tokens=5)
    assert meter.mean() == 2.0


def test_small_losses_are_not_lost_beside_a_large_sum() -> None:
    meter = add(LossMeter(alone()), [(2.0**25, 1)] + [(1.0, 0)] * 100)
    assert meter.mean() == 2.0**25 + 100


@pytest.mark.parametrize("cut", range(len(STEPS) + 1))
def test_a_restart_anywhere_keeps_the_mean(cut: int) -> None:
    saved = json.loads(json.dumps(add(LossMeter(alone()), STEPS[:cut]).state()))
    restarted = LossMeter(alone())
    restarted.load_state(saved)
    assert add(restarted, STEPS[cut:]).mean() == add(LossMeter(alone()), STEPS).mean()


def test_after_a_restart_only_one_rank_contributes_the_sum_so_far() -> None:
    saved = {"loss_sum": 12.0, "num_tokens": 6}
    local = []
    for rank in (0, 1):
        meter = LossMeter(Peers(rank))  # type: ignore[arg-type]
        meter.load_state(saved)
        assert meter.num_tokens == 6
        local.append(meter.state()["loss_sum"])
    assert local == [12.0, 0.0]
