"""Steps of an epoch: the drawn example, windows counted only as far as needed, and one count for all threads."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrain.data.epoch_steps import EpochSteps


class Counter:
    """Counts windows from a list, and remembers which were counted."""

    def __init__(self, counts: list[int], *, seconds: float = 0.0) -> None:
        self.counts = counts
        self.seconds = seconds
        self.asked: list[int] = []

    def __call__(self, window: int) -> int:
        self.asked.append(window)
        time.sleep(self.seconds)
        return self.counts[window]


def build(*counts: int, seconds: float = 0.0) -> tuple[EpochSteps, Counter]:
    counter = Counter(list(counts), seconds=seconds)
    return EpochSteps(counter, num_windows=len(counts)), counter


def test_the_drawn_example_is_true() -> None:
    steps, _ = build(4, 3, 5)
    assert steps.num_steps() == 12
    assert steps.locate(5) == (1, 4)
    assert steps.locate(12) == (3, 12)
    assert steps.progress(5) == (1, 1 / 3)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_every_step_is_located_in_its_window(counts: list[int]) -> None:
    steps, _ = build(*counts)
    expected = [(window, sum(counts[:window])) for window, count in enumerate(counts) for _ in range(count)]
    assert [steps.locate(step) for step in range(sum(counts))] == expected
    assert steps.locate(sum(counts) + 7) == (len(counts), sum(counts))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_progress_is_the_windows_passed_and_the_share_of_the_next(counts: list[int]) -> None:
    steps, _ = build(*counts)
    for step in range(sum(counts)):
        window, first = steps.locate(step)
        assert steps.progress(step) == (window, (step - first) / counts[window])
    assert steps.progress(sum(counts)) == (len(counts), 0.0)


@pytest.mark.parametrize(("step", "counted"), [(0, [0]), (3, [0]), (4, [0, 1]), (6, [0, 1]), (7, [0, 1, 2])])
def test_windows_are_counted_up_to_the_step_and_once(step: int, counted: list[int]) -> None:
    steps, counter = build(4, 3, 5)
    steps.locate(step)
    steps.locate(step)
    assert counter.asked == counted


def test_the_progress_at_the_first_step_of_a_window_does_not_count_it() -> None:
    steps, counter = build(4, 3, 5)
    assert steps.progress(0) == (0, 0.0)
    assert counter.asked == []
    assert steps.progress(4) == (1, 0.0)
    assert counter.asked == [0]


def test_counts_set_from_elsewhere_are_not_counted_again() -> None:
    steps, counter = build(1, 1, 1)
    steps.set_counts(np.asarray([4, 3, 5]))
    assert (steps.num_steps(), steps.locate(7)) == (12, (2, 7))
    assert counter.asked == []


def test_threads_share_one_count() -> None:
    steps, counter = build(4, 3, 5, seconds=0.02)
    totals: list[int] = []
    threads = [threading.Thread(target=lambda: totals.append(steps.num_steps())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals == [12] * 4
    assert counter.asked == [0, 1, 2]
