"""Random choices of the generated data, and which combinations are held back from training."""

import functools
import zlib
from collections.abc import Sequence
from random import Random
from typing import TypeVar

Choice = TypeVar("Choice")


def pick(rng: Random, choices: Sequence[Choice]) -> Choice:
    """One of the choices, all equally likely.

    Uses only `random()`, the one method whose sequence for a seed is the same in all Python versions.
    """
    return choices[int(rng.random() * len(choices))]


@functools.cache
def is_held_back(*parts: str | int) -> bool:
    """Whether this combination of parts is for evaluation only: one in ten is, on every machine and for every seed."""
    return zlib.crc32("|".join(map(str, parts)).encode()) % 10 == 0
