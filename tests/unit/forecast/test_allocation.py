"""How a run passes through allocations."""

from typing import Any

import pytest

from dstrain.forecast.allocation import plan_allocations

OPTIONS: dict[str, Any] = {
    "set_up_seconds": 600.0,
    "hours": 2.0,
    "reserve_seconds": 60.0,
    "every_minutes": 10.0,
    "save_gap": 3600.0,
}
USABLE = 7200 - 600 - 60


@pytest.mark.parametrize(("work", "num"), [(0, 1), (USABLE, 1), (USABLE + 1, 2), (10 * USABLE, 10)])
def test_every_start_repeats_the_set_up(work: float, num: int) -> None:
    found = plan_allocations(work_seconds=work, **OPTIONS)
    assert found is not None
    assert (found.num_allocations, found.num_restarts, found.usable_seconds) == (num, num - 1, USABLE)


def test_a_failure_costs_the_time_since_the_last_save() -> None:
    costs = [
        plan_allocations(work_seconds=1.0, **(OPTIONS | {"every_minutes": minutes, "save_gap": gap}))
        for minutes, gap in ((10.0, 3600.0), (10.0, 60.0), (0.0, 3600.0))
    ]
    assert [each and each.lost_seconds for each in costs] == [600.0, 60.0, 3600.0]


def test_the_reserve_is_at_most_a_tenth_of_an_allocation() -> None:
    found = plan_allocations(work_seconds=1.0, **(OPTIONS | {"hours": 0.5, "reserve_seconds": 3600.0}))
    assert found is not None
    assert found.usable_seconds == 1800 - 600 - 180


def test_an_allocation_that_is_over_before_the_first_step() -> None:
    assert plan_allocations(work_seconds=1.0, **(OPTIONS | {"hours": 0.1})) is None
