"""What `dstrain plan` says of memory is what the engine's tensors take, by part, on every ZeRO stage."""

from typing import Any

import pytest

from dstrain.cluster.process_group import Ranks
from tests.distributed.memory import FAMILIES, build_config, foretell, measure
from tests.distributed.ranks import run_ranks

PARTS = ("weights", "optimizer", "gradients", "buckets", "gather", "evaluation_gather")
TOLERANCE = 0.10


def measure_all(ranks: Ranks, cases: list[dict[str, Any]]) -> list[dict[str, int]]:
    return [measure(ranks, build_config(**case)) for case in cases]


def cases_of(precision: str) -> list[dict[str, Any]]:
    return [
        {"family": family, "precision": precision, "machine__zero_stage": stage}
        for family in FAMILIES
        for stage in range(0 if precision == "fp32" else 1, 4)
    ]


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_part_is_within_a_tenth_of_the_live_tensors(precision: str, world_size: int) -> None:
    cases = cases_of(precision)
    measured = run_ranks(measure_all, cases, world_size=world_size)[0]
    lines, faults = [], []
    for case, found in zip(cases, measured, strict=True):
        told = foretell(build_config(**case), world_size=world_size)
        for part in PARTS:
            expected, seen = getattr(told, part), found[part]
            where = f"{case['family']:7} {precision} {world_size} ranks ZeRO {case['machine__zero_stage']}"
            lines.append(f"{where} {part:17} {expected:>10,} {seen:>10,}")
            if abs(expected - seen) > TOLERANCE * seen:
                faults.append(lines[-1])
    print("\n".join(lines))
    assert faults == []
