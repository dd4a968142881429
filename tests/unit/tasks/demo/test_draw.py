"""Choices: every one equally likely, pinned for a seed, and one combination in ten held back."""

from collections import Counter
from random import Random

from dstrain.tasks.demo.draw import is_held_back, pick


def test_every_choice_is_about_equally_likely() -> None:
    rng = Random(0)
    counts = Counter(pick(rng, "abcd") for _ in range(8_000))
    assert set(counts) == set("abcd")
    assert all(1_800 < count < 2_200 for count in counts.values())


def test_choices_of_a_seed_are_pinned() -> None:
    rng = Random("demo")
    assert [pick(rng, range(100)) for _ in range(5)] == [66, 49, 51, 9, 4]


def test_a_tenth_of_all_combinations_is_held_back_whatever_the_types_of_their_parts() -> None:
    combinations = [(name, number) for name in ("age", "floor", "bus") for number in range(1_000)]
    share = sum(is_held_back(*parts) for parts in combinations) / len(combinations)
    assert 0.08 < share < 0.12
    assert [is_held_back(*parts) for parts in combinations] == [is_held_back(n, str(i)) for n, i in combinations]
