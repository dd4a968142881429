"""The learning rate of every step, against transformers' own schedulers."""

import math
from typing import Any

import pytest
import torch
from transformers import get_scheduler

from dstrain.config.recipe import Training
from dstrain.engine.schedule import learning_rate_at

PEAK = 3e-4


def build_training(**changes: Any) -> Training:
    return Training.model_validate({"batch_size": 1, "max_steps": 1, "learning_rate": PEAK, **changes})


def theirs(name: str, *, warmup: int, total: int) -> list[float]:
    """The rate each of `total` optimizer steps is made with."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    rates = []
    for _ in range(total):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


def ours(schedule: str, *, warmup: int, total: int) -> list[float]:
    training = build_training(schedule=schedule, warmup_steps=warmup)
    return [learning_rate_at(step, training=training, total_steps=total) for step in range(1, total + 1)]


@pytest.mark.parametrize(
    ("schedule", "their_name"), [("linear", "linear"), ("cosine", "cosine"), ("constant", "constant_with_warmup")]
)
@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (0, 50), (1, 50), (7, 50), (49, 50), (50, 50), (60, 50), (1, 1)])
def test_every_step_has_the_rate_of_transformers(schedule: str, their_name: str, warmup: int, total: int) -> None:
    assert ours(schedule, warmup=warmup, total=total) == pytest.approx(
        theirs(their_name, warmup=warmup, total=total), rel=1e-12, abs=1e-18
    )


@pytest.mark.parametrize(("warmup", "total"), [(1, 50), (10, 50), (100, 50)])
def test_inverse_square_root_agrees_with_transformers_where_it_has_a_warm_up(warmup: int, total: int) -> None:
    assert ours("inverse_sqrt", warmup=warmup, total=total) == pytest.approx(
        theirs("inverse_sqrt", warmup=warmup, total=total), rel=1e-12
    )


def test_inverse_square_root_without_a_warm_up_begins_at_the_peak() -> None:
    rates = ours("inverse_sqrt", warmup=0, total=17)
    assert rates[:2] == [PEAK, PEAK]
    assert rates[16] == pytest.approx(PEAK / 4)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant", "inverse_sqrt"])
@pytest.mark.parametrize("warmup", [0, 5])
def test_the_rate_stays_between_zero_and_the_peak_even_past_the_end(schedule: str, warmup: int) -> None:
    training = build_training(schedule=schedule, warmup_steps=warmup)
    rates = [learning_rate_at(step, training=training, total_steps=20) for step in range(1, 40)]
    assert all(math.isfinite(rate) and 0.0 <= rate <= PEAK for rate in rates)
    assert max(rates) == PEAK
    assert rates[warmup] == PEAK
