"""Choices of the generated data: drawn from a seed, and divided into what training may see and what it may not."""

import functools
import zlib
from collections.abc import Sequence
from random import Random
from typing import TypeVar

Choice = TypeVar("Choice")


def pick(rng: Random, choices: Sequence[Choice]) -> Choice:
    """One of the choices, all equally likely.

    Leans on `random()` alone, the one method whose sequence Python promises to keep for a seed in every version.
    """
    return choices[int(rng.random() * len(choices))]


@functools.cache
def is_held_back(*parts: str | int) -> bool:
    """Whether this combination of parts belongs to evaluation: one in ten does, on every machine and for every seed."""
    return zlib.crc32("|".join(map(str, parts)).encode()) % 10 == 0
