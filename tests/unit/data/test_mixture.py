"""Mixtures of sources: their shares, and which rows an epoch draws."""

from typing import Any

import numpy as np
import pytest

from dstrain.config.data import Data
from dstrain.data.cuts import Cut
from dstrain.data.mixture import Mixture, find_mixture
from dstrain.data.plan import Plan, Position, Rest

DEMO = {"demo": "parsing"}


def mix(*sizes: int, temperature: float | None = None, weights: tuple[float, ...] = ()) -> Mixture:
    sources = [DEMO | ({"weight": weights[number]} if weights else {}) for number, _ in enumerate(sizes)]
    data = Data.model_validate({"train": sources, "eval": [DEMO], "temperature": temperature})
    found = find_mixture(data, report={"by_source": [{"used": size} for size in sizes]})
    assert found is not None
    return found


def draw(mixture: Mixture, epoch: int, *, seed: int = 1) -> list[int]:
    places = np.arange(mixture.num_rows, dtype=np.int64)
    return mixture.rows(places, fingerprint="data", seed=seed, epoch=epoch).tolist()


@pytest.mark.parametrize("temperature", [1.0, 1.5, 5.0, 1e9])
def test_the_shares_of_an_epoch_are_those_of_the_formula(temperature: float) -> None:
    sizes = (9_000, 900, 100)
    mixture = mix(*sizes, temperature=temperature)
    powers = [(size / 10_000) ** (1 / temperature) for size in sizes]
    expected = [10_000 * power / sum(powers) for power in powers]
    assert mixture.num_rows == 10_000
    assert all(abs(count - wanted) < 1 for count, wanted in zip(mixture.counts, expected, strict=True))
    if temperature == 1.0:
        assert mixture.counts == sizes


def test_weights_are_shares_whatever_the_sizes() -> None:
    mixture = mix(100, 20, 30, weights=(1.0, 0.5, 0.5))
    assert mixture.counts == (75, 38, 37)
    assert mixture.passes == pytest.approx((0.75, 1.9, 37 / 30))


def test_a_source_of_the_least_weight_has_one_row() -> None:
    assert mix(1000, 5, weights=(1.0, 1e-9)).counts[1] == 1


def test_without_weights_and_temperature_nothing_is_mixed() -> None:
    data = Data.model_validate({"train": [DEMO], "eval": [DEMO]})
    assert find_mixture(data, report={"by_source": [{"used": 3}]}) is None


def test_every_row_of_a_source_comes_once_before_any_comes_again() -> None:
    mixture = Mixture(sizes=(10, 4, 7), counts=(3, 9, 7))
    passed: list[list[int]] = [[], [], []]
    bounds = [(0, 10), (10, 14), (14, 21)]
    for epoch in range(20):
        rows = draw(mixture, epoch)
        for number, (first, end) in enumerate(bounds):
            own = [row for row in rows if first <= row < end]
            assert len(own) == mixture.counts[number]
            passed[number] += own
            counts = np.bincount(np.asarray(passed[number]) - first, minlength=end - first)
            assert counts.max() - counts.min() <= 1


def test_any_part_of_an_epoch_is_the_same_as_in_the_whole() -> None:
    mixture = mix(50, 7, 300, temperature=3.0)
    whole = draw(mixture, 4)
    places = np.asarray([5, 300, 6, 356, 0, 120, 119], dtype=np.int64)
    assert mixture.rows(places, fingerprint="data", seed=1, epoch=4).tolist() == [whole[place] for place in places]


def test_another_seed_draws_other_rows_and_another_mixture_is_another_epoch() -> None:
    mixture = mix(500, 500, weights=(1.0, 3.0))
    assert set(draw(mixture, 0)) != set(draw(mixture, 0, seed=2))
    other = mix(500, 500, weights=(1.0, 2.0))
    assert len({mixture.fingerprint("a"), other.fingerprint("a"), mixture.fingerprint("b"), "a"}) == 4


def plan(mixture: Mixture, *, rest: Rest | None = None, **changes: Any) -> Plan:
    lengths = np.random.default_rng(0).integers(2, 30, size=(2, sum(mixture.sizes)), dtype=np.int32)
    settings: dict[str, Any] = {"batch_size": 16, "batch_unit": "sequences", "seed": 3, "window_rows": 64} | changes
    cut = Cut(micro_batch_tokens=512)
    return Plan(*lengths, fingerprint="data", cut=cut, mixture=mixture, rest=rest, **settings)


@pytest.mark.parametrize(("batch_unit", "batch_size"), [("sequences", 16), ("target_tokens", 120)])
def test_an_epoch_of_a_plan_holds_what_the_mixture_draws_in_a_random_order(batch_unit: str, batch_size: int) -> None:
    mixture = mix(150, 20, 30, temperature=4.0)
    made = plan(mixture, batch_unit=batch_unit, batch_size=batch_size)
    for epoch in (0, 3):
        rows = [row for step in range(made.num_steps(epoch)) for row in made.step(Position(epoch, step)).rows.tolist()]
        drawn = mixture.rows(np.arange(200, dtype=np.int64), fingerprint="data", seed=3, epoch=epoch).tolist()
        assert sorted(rows) == sorted(drawn)
        assert rows != sorted(rows)


def test_rows_that_an_epoch_has_left_come_once_under_another_batch_size() -> None:
    mixture = mix(150, 20, 30, temperature=4.0)
    begun = plan(mixture)
    trained = [row for step in range(5) for row in begun.step(Position(0, step)).rows.tolist()]
    rest = Rest(0, begun.rows_from(Position(0, 5)))
    later = plan(mixture, batch_size=7, rest=rest)
    left = [row for step in range(later.num_steps(0)) for row in later.step(Position(0, step)).rows.tolist()]
    whole = [row for step in range(begun.num_steps(0)) for row in begun.step(Position(0, step)).rows.tolist()]
    assert trained + left == whole
