"""What `dstrain plan` says of memory beside the live tensors of real engines, as a table.

    python -m tests.benchmarks.plan > docs/memory.md

On one and two CPU ranks, for four families, each ZeRO stage, in fp32 and bf16. The tests check the same numbers.
"""

from typing import Any

import torch

from dstrain.cluster.process_group import Ranks
from dstrain.forecast.activations import Kernels, saved_bytes
from dstrain.forecast.workload import Batch
from tests.distributed.memory import FAMILIES, architecture_of, build_config, foretell, measure
from tests.distributed.ranks import run_ranks
from tests.unit.forecast.test_activations import SHAPES, saved_in_fact

PARTS = ("weights", "optimizer", "gradients", "buckets", "gather", "evaluation_gather")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    """Print both tables in Markdown."""
    print("# Foretold and measured memory\n")
    print(
        "KB on each rank, foretold / measured, over two steps of two micro-batches of four rows. Models of 0.7 to 0.8 million"
    )
    print("parameters; `python -m tests.benchmarks.plan` writes this page.\n")
    _print_row("family", "precision", "ranks", "ZeRO", *(part.replace("_", " ") for part in PARTS))
    _print_row(*["---"] * (4 + len(PARTS)))
    for precision in PRECISIONS:
        for world_size in (1, 2):
            _compare_engines(precision, world_size=world_size)
    print("\n# Activations\n")
    print("KB that autograd saves of a micro-batch of rows × (source + target) positions, foretold / measured.\n")
    _print_row(
        "family", "precision", "dropout", *(f"{rows} × ({source} + {target})" for rows, source, target in SHAPES)
    )
    _print_row(*["---"] * (3 + len(SHAPES)))
    for family in FAMILIES:
        for precision, dtype in PRECISIONS.items():
            for dropout in (0.0, 0.1):
                config = build_config(family, model__dropout=dropout, precision=precision)
                _print_row(family, precision, dropout, *(_compare_saved(config, dtype, shape) for shape in SHAPES))


def _compare_engines(precision: str, *, world_size: int) -> None:
    stages = range(0 if precision == "fp32" else 1, 4)
    cases = [
        {"family": family, "precision": precision, "machine__zero_stage": stage}
        for family in FAMILIES
        for stage in stages
    ]
    for case, found in zip(cases, run_ranks(_measure_all, cases, world_size=world_size)[0], strict=True):
        told = foretell(build_config(**case), world_size=world_size)
        cells = [_cell(getattr(told, part), found[part]) for part in PARTS]
        _print_row(case["family"], precision, world_size, case["machine__zero_stage"], *cells)


def _measure_all(ranks: Ranks, cases: list[dict[str, Any]]) -> list[dict[str, int]]:
    return [measure(ranks, build_config(**case)) for case in cases]


def _compare_saved(config: Any, dtype: torch.dtype, shape: tuple[int, int, int]) -> str:
    rows, source, target = shape
    batch = Batch(rows, source, target, rows * target)
    told = saved_bytes(architecture_of(config), batch, kernels=Kernels("cpu", dtype.itemsize))
    return _cell(told, saved_in_fact(config, shape=shape, dtype=dtype))


def _cell(told: int, seen: int) -> str:
    return "–" if told == seen == 0 else f"{told / 1e3:,.0f} / {seen / 1e3:,.0f}"


def _print_row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
