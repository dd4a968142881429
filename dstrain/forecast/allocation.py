"""Whether a run ends within its allocations, restarts counted. Pure."""

import math
from dataclasses import dataclass

from dstrain.cluster.walltime import MAX_RESERVED


@dataclass(frozen=True, slots=True)
class Allocation:
    """How a run of so many seconds passes through allocations of equal length."""

    hours: float
    num_allocations: int
    """1 if it ends within the first."""
    num_restarts: int
    usable_seconds: float
    """Of an allocation, for steps, evaluations and saves: without set-up and the reserve at its end."""
    lost_seconds: float
    """Computed again after a failure of a node, at most; the end of an allocation costs nothing but the set-up."""


def plan_allocations(
    *,
    work_seconds: float,
    set_up_seconds: float,
    hours: float,
    reserve_seconds: float,
    every_minutes: float,
    save_gap: float,
) -> Allocation | None:
    """The allocations that a run needs; None if the set-up alone takes the whole of one.

    `work_seconds` are all but the set-up, which every start repeats. `save_gap` is the time between saves at steps: a failure
    costs no more than that, or than `every_minutes` (`checkpoint.every_minutes`) where these are shorter and not 0.
    """
    seconds = hours * 3600.0
    usable = seconds - set_up_seconds - min(reserve_seconds, MAX_RESERVED * seconds)
    if usable <= 0:
        return None
    num = max(1, math.ceil(work_seconds / usable))
    lost = min(save_gap, every_minutes * 60.0) if every_minutes else save_gap
    return Allocation(hours, num, num - 1, usable, lost)
