"""When saves by time are due, by a clock that only tests turn."""

import pytest

from tests.unit.training.training_cases import Watch


def due_times(watch: Watch, *, until: int, standing_seconds: float = 0.0) -> list[float]:
    """The seconds at which a save was due and made, in steps of a second."""
    found = []
    while watch.seconds < until:
        if watch.save_clock.is_due():
            found.append(watch.seconds)
            watch.save(standing_seconds=standing_seconds)
        watch.seconds += 1.0
    return found


def test_the_first_save_comes_after_a_minute_and_the_next_after_the_interval() -> None:
    assert due_times(Watch(10.0), until=2000) == [60.0, 660.0, 1260.0, 1860.0]


def test_an_interval_below_a_minute_holds_for_the_first_save_too() -> None:
    assert due_times(Watch(0.25), until=60) == [15.0, 30.0, 45.0]


def test_zero_switches_saves_by_time_off() -> None:
    watch = Watch(0.0)
    assert due_times(watch, until=10_000) == []
    watch.save()
    watch.seconds = 1e9
    assert not watch.save_clock.is_due(within_seconds=1e9)


def test_any_save_begins_the_interval_anew() -> None:
    watch = Watch(10.0)
    watch.seconds = 50.0
    watch.save()
    assert due_times(watch, until=1000) == [650.0]


def test_nothing_is_due_before_training_begins() -> None:
    watch = Watch(10.0)
    watch.seconds = 1e6  # set-up
    watch.save_clock.start()
    assert not watch.save_clock.is_due()
    watch.seconds += 60.0
    assert watch.save_clock.is_due()


def test_a_save_is_due_ahead_of_a_time_in_which_none_is_possible() -> None:
    watch = Watch(10.0)
    watch.save()
    watch.seconds = 400.0
    assert not watch.save_clock.is_due(within_seconds=199.0)
    assert watch.save_clock.is_due(within_seconds=200.0)


@pytest.mark.parametrize(
    ("standing_seconds", "minutes"), [(6.0, 10.0), (6.1, 20.0), (12.0, 20.0), (12.1, 40.0), (100.0, 320.0)]
)
def test_the_interval_doubles_until_saves_hold_up_one_percent_of_it(standing_seconds: float, minutes: float) -> None:
    watch = Watch(10.0)
    due_times(watch, until=10_000, standing_seconds=standing_seconds)
    assert watch.save_clock.interval_seconds == 60 * minutes


def test_one_slow_save_changes_nothing_and_a_quick_one_brings_the_interval_back() -> None:
    watch = Watch(10.0)
    seen = []
    for standing in (50.0, 1.0, 30.0, 30.0, 1.0):
        watch.seconds += 1e5
        watch.save(standing_seconds=standing)
        seen.append(watch.save_clock.interval_seconds / 60)
    assert seen == [10.0, 10.0, 10.0, 80.0, 10.0]


def test_saves_for_another_reason_do_not_count_as_slow() -> None:
    watch = Watch(10.0)
    for _ in range(5):
        watch.save(standing_seconds=59.0)
    assert watch.save_clock.interval_seconds == 600.0
