"""Memory and time of vocabulary projection and loss, forward and backward: here, in the stock models, and two other ways.

`python -m tests.benchmarks.loss_memory [--sizes mt5-small m2m100] [--rows 128] [--real 1.0 0.4] [--repeats 3] [--micro-batches 1]
[--dtype fp32] [--threads 1] [--json FILE]`. Every figure comes from its own process, and the kinds take turns; the result
is the median of the repeats. If others use the machine too, CPU seconds on one thread are more reliable than wall-clock seconds.

Memory is the growth of the resident set at its peak (`VmHWM`, reset before the measured run) over its size with weight and states
in place, so it includes the gradient of the weight; on a GPU it is the peak of the allocator. The time is that of a second run in
the same process.
"""

import argparse
import gc
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from dstrain.models.projection import projected_cross_entropy

SIZES = {"mt5-small": (250112, 512), "m2m100": (128112, 1024)}
"""Vocabulary size and hidden size of mT5-small and M2M100-418M."""
POSITIONS = 16 * 64
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LOSS_SCALE = 1 / 1000
FIGURES = ("mib", "seconds", "cpu_seconds")

Loss = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def stock(states: Tensor, weight: Tensor, labels: Tensor, rows: int) -> Tensor:
    """`model(...).loss`: all positions, including padding."""
    del rows
    return functional.cross_entropy(functional.linear(states, weight), labels, reduction="sum")


def recomputed(states: Tensor, weight: Tensor, labels: Tensor, rows: int) -> Tensor:
    """Real positions in chunks whose logits are computed again in the backward pass."""

    def chunk_loss(chunk: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(functional.linear(chunk, weight).float(), targets, reduction="sum")

    states, labels = _real(states, labels)
    num_chunks = math.ceil(len(labels) / rows)
    if num_chunks == 1:
        return chunk_loss(states, labels)
    total = torch.zeros((), device=states.device)
    for chunk, targets in zip(states.chunk(num_chunks), labels.chunk(num_chunks), strict=True):
        total = total + checkpoint(chunk_loss, chunk, targets, use_reentrant=False, preserve_rng_state=False)
    return total


def own(states: Tensor, weight: Tensor, labels: Tensor, rows: int) -> Tensor:
    """Real positions through `projected_cross_entropy`."""
    states, labels = _real(states, labels)
    return projected_cross_entropy(states, weight, labels, max_logits=rows * len(weight))


def torchs(states: Tensor, weight: Tensor, labels: Tensor, rows: int) -> Tensor:
    """Real positions through `torch.nn.functional.linear_cross_entropy`, of torch 2.13 and later."""
    states, labels = _real(states, labels)
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=rows, chunking_method=None)
    return functional.linear_cross_entropy(states, weight, labels, reduction="sum", options=options)


KINDS: dict[str, Loss] = {"stock": stock, "recomputed": recomputed, "own": own}
if hasattr(functional, "linear_cross_entropy"):
    KINDS["torch"] = torchs


def _real(states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    positions = (labels != -100).nonzero().flatten()
    return states[positions], labels[positions]


def measure(
    kind: str, size: str, dtype: str, real: float, rows: int, micro_batches: int, threads: int | None
) -> dict[str, float]:
    """In a fresh process: peak MiB, seconds per micro-batch, and the loss to compare."""
    if threads is not None:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vocabulary, hidden = SIZES[size]
    torch.manual_seed(0)
    weight = (torch.randn(vocabulary, hidden, device=device) * 0.03).to(DTYPES[dtype]).requires_grad_()
    states = torch.randn(POSITIONS, hidden, device=device).to(DTYPES[dtype]).requires_grad_()
    labels = torch.randint(0, vocabulary, (POSITIONS,), device=device)
    labels[torch.randperm(POSITIONS, device=device)[round(real * POSITIONS) :]] = -100

    def run(head: Tensor) -> float:
        head.grad = None
        for _ in range(micro_batches):
            states.grad = None
            loss = KINDS[kind](states, head, labels.clamp(max=len(head) - 1), rows)
            (loss * LOSS_SCALE).backward()
        return loss.item()

    run(weight.detach()[:1000].clone().requires_grad_())  # libraries allocate memory at the first call
    states.grad = None
    gc.collect()
    held = _reset_peak(device)
    loss = run(weight)
    peak = _peak(device) - held
    started, started_cpu = time.perf_counter(), time.process_time()
    run(weight)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    return {
        "mib": peak / 2**20,
        "seconds": seconds / micro_batches,
        "cpu_seconds": cpu_seconds / micro_batches,
        "loss": loss,
    }


def _reset_peak(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to what is resident now
    return _status("VmRSS")


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def measure_apart(*arguments: Any) -> dict[str, float]:
    """`measure` in its own process."""
    command = [sys.executable, "-m", "tests.benchmarks.loss_memory", "--one", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(options: argparse.Namespace, *, size: str, real: float) -> list[dict[str, Any]]:
    """Measures all kinds and chunk sizes of one case in turn; returns one row for each, as printed."""
    cases = [
        (kind, rows) for rows in options.rows for kind in options.kinds if kind != "stock" or rows == options.rows[0]
    ]
    found: dict[tuple[str, int], list[dict[str, float]]] = {case: [] for case in cases}
    for _ in range(options.repeats):
        for kind, rows in cases:
            arguments = (kind, size, options.dtype, real, rows, options.micro_batches, options.threads)
            found[kind, rows].append(measure_apart(*arguments))
    given = [_summarise(size, real, *case, results, base=found[cases[0]]) for case, results in found.items()]
    print(f"{size}, {real:.0%} of {POSITIONS} positions real; ratios to {cases[0][0]}")
    for row in given:
        figures = (
            f"{name} {row[name]:.2f} ({row[f'{name}_range'][0]:.2f} to {row[f'{name}_range'][1]:.2f}; "
            f"{row[f'{name}_ratio']:.3f})"
            for name in FIGURES
        )
        print(
            f"  {row['kind']:<10} rows {row['rows'] or 'all':<4} {'  '.join(figures)}  loss {row['loss']:.6g}",
            flush=True,
        )
    return given


def _summarise(
    size: str,
    real: float,
    kind: str,
    rows: int,
    results: list[dict[str, float]],
    *,
    base: list[dict[str, float]],
) -> dict[str, Any]:
    row: dict[str, Any] = {"size": size, "real": real, "kind": kind, "rows": None if kind == "stock" else rows}
    for name in FIGURES:
        values = [result[name] for result in results]
        row |= {name: median(values), f"{name}_range": [min(values), max(values)]}
        row[f"{name}_ratio"] = row[name] / median(result[name] for result in base)
    return row | {"loss": results[0]["loss"]}


def main() -> None:
    """Measure and print a line per case; write the same as JSON if a file is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rows", nargs="+", type=int, default=[128], help="positions in a chunk")
    parser.add_argument("--real", nargs="+", type=float, default=[1.0, 0.4], help="share of positions that are real")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--micro-batches", type=int, default=1, help="number of micro-batches whose gradients are accumulated"
    )
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(*json.loads(options.one))))
        return
    rows = [row for size in options.sizes for real in options.real for row in compare(options, size=size, real=real)]
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
