"""Which rows and evaluations a report holds where all would make it too large. Pure, and the same at every call.

Rows are drawn by a hash of what they are, so that reports of several runs draw the same ones.
"""

import hashlib
from collections.abc import Collection, Sequence

SEED = "dstrain report 1"


def spread(number: int, *, most: int, keep: Collection[int] = ()) -> list[int]:
    """At most `most` of the places 0 to `number` - 1, ascending: those in `keep`, the first, the last, and evenly between.

    `most` is at least 2, and more than the length of `keep` by that.
    """
    if number <= most:
        return list(range(number))
    fixed = {0, number - 1, *keep}
    free = most - len(fixed)
    others = [place for place in range(number) if place not in fixed]
    chosen = {others[(2 * each + 1) * len(others) // (2 * free)] for each in range(free)} if free > 0 else set[int]()
    return sorted(fixed | chosen)


def draw(keys: Sequence[str], *, most: int) -> list[int]:
    """At most `most` places of `keys`, ascending: those whose hashes with the seed are the smallest."""
    if len(keys) <= most:
        return list(range(len(keys)))

    def order(place: int) -> tuple[bytes, int]:
        return hashlib.sha256(f"{SEED}\0{keys[place]}".encode("utf-8", errors="replace")).digest(), place

    return sorted(sorted(range(len(keys)), key=order)[:most])
