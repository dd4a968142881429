"""Sizes, lengths of training and limits of length: bounds and monotony over the sizes of data."""

import pytest

from dstrain.draft.machine import Machine
from dstrain.draft.sizes import (
    LENGTHS,
    SHAPES,
    SIZES,
    choose_length,
    choose_size,
    choose_vocabulary,
    count,
    plan_training,
)

CPU, GPU = Machine(0, 2, None), Machine(1, 8, None)
NUMBERS = (1, 5, 50, 500, 5_000, 15_667, 50_000, 500_000, 50_000_000)


@pytest.mark.parametrize("machine", [CPU, GPU], ids=["cpu", "gpu"])
def test_more_rows_never_get_a_smaller_model(machine: Machine) -> None:
    chosen = [SIZES.index(choose_size(number, machine=machine)[0]) for number in NUMBERS]
    assert chosen == sorted(chosen)
    assert chosen[-1] == (3 if machine.has_gpu else 1)


def test_every_shape_divides_its_width_by_its_heads() -> None:
    assert SHAPES.keys() == {*SIZES}
    assert all(shape.hidden_size % shape.num_heads == 0 for shape in SHAPES.values())


@pytest.mark.parametrize("machine", [CPU, GPU], ids=["cpu", "gpu"])
@pytest.mark.parametrize("from_scratch", [True, False])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_training_has_ten_to_twenty_evaluations_and_fits_its_rows(
    number: int, from_scratch: bool, machine: Machine
) -> None:
    plan = plan_training(number, machine=machine, from_scratch=from_scratch)
    assert 10 <= plan.max_steps / plan.evaluate_every <= 20
    assert 1 <= plan.warmup_steps <= plan.max_steps / 10
    assert 1 <= plan.log_every <= plan.evaluate_every
    assert plan.max_steps <= (20_000 if machine.has_gpu else 3_000)
    assert plan.epochs == pytest.approx(plan.max_steps * min(plan.batch_size, number) / number)


def test_mtop_gets_the_length_of_its_shipped_recipe() -> None:
    assert plan_training(15_667, machine=CPU, from_scratch=True).max_steps == 3000


def test_a_vocabulary_has_room_for_every_character() -> None:
    assert choose_vocabulary(1_700_000, distinct=92)[0] == 4000
    assert choose_vocabulary(50_000, distinct=40)[0] == 500
    assert choose_vocabulary(50_000, distinct=2_000)[0] == 3400
    sizes = [choose_vocabulary(number, distinct=10)[0] for number in (1, 10**5, 10**6, 10**7, 10**9)]
    assert sizes == sorted(sizes)


def test_a_limit_leaves_nearly_all_rows_whole_and_all_where_that_costs_little() -> None:
    assert choose_length([10.0] * 999 + [30.0]) == 32
    assert choose_length([10.0] * 999 + [3000.0]) == 16
    assert choose_length([10.0] * 90 + [300.0] * 10) == 384
    assert choose_length([1e9]) == LENGTHS[-1]
    assert choose_length([100.0] * 989 + [200.0] * 11) == 256


@pytest.mark.parametrize(("num_rows", "most"), [(2, 100), (40, 300), (1_000, 500)])
def test_few_rows_are_not_seen_thousands_of_times(num_rows: int, most: int) -> None:
    assert plan_training(num_rows, machine=CPU, from_scratch=True).max_steps <= most


def test_one_is_no_plural() -> None:
    assert [count(number, "row") for number in (1, 2, 2_000)] == ["1 row", "2 rows", "2,000 rows"]
