"""A billion rows for 512 ranks: the data's plan, every rank's share and memory, and the run folder, without any training.

`python -m tests.benchmarks.scale [--rows N] [--ranks N] [--folder DIR] [--json FILE]`. Lengths are real files, drawn from a
fixed seed; 8 bytes per row are written to DIR and removed afterwards. Token ids and their start positions are sparse files:
the ids of every row are the beginning of one list. Every figure of a rank is from a fresh process. Its seconds are
CPU seconds, which do not depend on other load of the machine; where it waits for the disk, they are wall-clock seconds.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

from dstrain.data.arrays import Rows
from dstrain.data.cuts import Cut, longest
from dstrain.data.loader import Loader
from dstrain.data.permutation import permutation_keys, permute
from dstrain.data.plan import FILLER, WINDOW_ROWS, Exchange, Plan, Position, deal
from dstrain.data.tokens import DESCRIPTION, TokenSet, load_token_set
from tests.benchmarks.timing import Clock, timed

LENGTHS_SEED = 7
MAX_TOKENS = 128
CHUNK_ROWS = 1 << 23
MICRO_BATCH_TOKENS = 2048
SAMPLED_STEPS = 100
RESUMED_STEP = 1_000_000
COUNTS = "counts-{}.npy"
"""Stored beside the token set: the steps of every window, by the batch size in target tokens."""

Unit = Literal["sequences", "target_tokens"]
SMALL: Mapping[Unit, int] = {"sequences": 512, "target_tokens": 16_384}
"""Batch sizes with which an epoch of a billion rows has more than RESUMED_STEP steps."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of this process in bytes: anonymous, and mapped from files, which the processes of one host share."""

    anonymous: int
    of_files: int


@dataclass(frozen=True, slots=True)
class Share:
    """How one step was dealt to the ranks: the costs are padded tokens, the seconds those of one rank."""

    rows: Rows
    """In rank order."""
    num_micro_batches: int
    num_fillers: int
    balance: float
    """Load of the most loaded rank divided by the mean."""
    seconds: float


def read_memory() -> Memory:
    """The memory of this process, as reported by the kernel."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(value.split()[0]) * 1024 for name, value in (line.split(":") for line in lines)}
    return Memory(sizes["Anonymous"], sizes["Rss"] - sizes["Anonymous"])


def read_peak() -> int:
    """Peak memory of this process in bytes, both kinds together."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def write_token_set(folder: Path, *, num_rows: int) -> None:
    """Write a token set of random lengths in which all rows have the same first tokens."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(LENGTHS_SEED)
    for side in ("source", "target"):
        np.arange(MAX_TOKENS, dtype="<i4").tofile(folder / f"{side}_ids.bin")
        (folder / f"{side}_starts.bin").touch()
        os.truncate(folder / f"{side}_starts.bin", 8 * num_rows)
        with (folder / f"{side}_lengths.bin").open("wb") as file:
            for start in range(0, num_rows, CHUNK_ROWS):
                size = min(CHUNK_ROWS, num_rows - start)
                drawn = random.standard_normal(size, dtype=np.float32)
                np.clip(np.exp(drawn * 0.6 + 3.1), 4, MAX_TOKENS).astype("<i4").tofile(file)
            file.flush()
            os.fsync(file.fileno())
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    report = {"fingerprint": f"scale {num_rows}"}
    description = {"files": files, "report": report, "id_type": "<i4", "starts_every": 1}
    (folder / DESCRIPTION).write_text(json.dumps(description))


def forget_pages(folder: Path) -> None:
    """Make the kernel read the files of a folder from disk again."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def build_plan(tokens: TokenSet, *, unit: Unit, batch_size: int, num_rows: int | None = None) -> Plan:
    """The plan of a run on the first `num_rows` rows, or on all."""
    return Plan(
        tokens.source_lengths[:num_rows],
        tokens.target_lengths[:num_rows],
        fingerprint=tokens.fingerprint,
        seed=1,
        batch_size=batch_size,
        batch_unit=unit,
        cut=Cut(MICRO_BATCH_TOKENS),
    )


def build_loader(tokens: TokenSet, plan: Plan, *, rank: int, num_ranks: int) -> Loader:
    """The loader of a rank."""
    return Loader(
        tokens, plan, rank=rank, world_size=num_ranks, pad_id=1, decoder_start_id=2, prefetch_steps=2
    )  # fmt: skip


def share_step(plan: Plan, position: Position, *, num_ranks: int) -> Share:
    """Plan and deal one step as a rank does, and check that the ranks together have each of its rows once.

    Raises:
        AssertionError: they have not.
    """
    started = time.process_time()
    step = plan.step(position)
    pieces = step.micro_batches
    sizes = np.asarray([len(piece) for piece in pieces])
    sources, targets = (
        longest(lengths, micro_batches=pieces) for lengths in (plan.source_lengths, plan.target_lengths)
    )
    costs = sizes * (sources + targets)
    dealt = deal(costs.tolist(), world_size=num_ranks)
    seconds = time.process_time() - started
    places = [place for mine in dealt for place in mine if place != FILLER]
    rows = np.concatenate([pieces[place] for place in places])
    assert np.array_equal(np.sort(rows), np.sort(step.rows)), position
    assert len(np.unique(rows)) == len(rows), position
    loads = [sum(int(costs[place]) for place in mine if place != FILLER) for mine in dealt]
    num_fillers = sum(len(mine) for mine in dealt) - len(places)
    return Share(rows, len(pieces), num_fillers, max(loads) * num_ranks / sum(loads), seconds)


def exchange_known(mine: list[Rows], *, counts: Rows, num_ranks: int) -> list[list[Rows]]:
    """Replaces the exchange between ranks by counts that were made before.

    Raises:
        AssertionError: this rank has counted its part differently.
    """
    assert np.array_equal(mine[0], counts[0::num_ranks])
    return [[counts[rank::num_ranks]] for rank in range(num_ranks)]


def measure_rank(folder: Path, unit: Unit, batch_size: int, num_ranks: int, clock: Clock) -> dict[str, float]:
    """Seconds and bytes of one rank that starts a run, and that resumes in the middle of an epoch."""
    before = read_memory()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    found: dict[str, float] = {}

    def measure(name: str, action: Callable[[], Any]) -> Any:
        started = clock()
        result = action()
        found[name] = clock() - started
        return result

    tokens = measure("open", lambda: load_token_set(folder))
    plan = build_plan(tokens, unit=unit, batch_size=batch_size)
    loader = build_loader(tokens, plan, rank=0, num_ranks=num_ranks)
    measure("first step", lambda: loader.load_step(Position(0, 0)))
    found["next step"] = median(
        timed(partial(loader.load_step, Position(0, step)), times=1, clock=clock) for step in range(1, 11)
    )
    if unit == "target_tokens":
        counts = np.load(folder.with_name(COUNTS.format(batch_size)))
        exchange = partial(exchange_known, counts=counts, num_ranks=num_ranks)
        measure("count an epoch together", partial(count_together, plan, exchange=exchange, num_ranks=num_ranks))
    found["steps of an epoch"] = plan.num_steps(0)
    resumed = min(RESUMED_STEP, plan.num_steps(0) // 2)
    found["resumed at step"] = resumed
    measure("first step of a resumed run", lambda: loader.load_step(Position(0, resumed)))
    after = read_memory()
    found["own memory"] = after.anonymous - before.anonymous
    found["mapped memory"] = after.of_files - before.of_files
    found["peak of both memories"] = read_peak() - before.anonymous - before.of_files
    return found


def count_together(plan: Plan, *, exchange: Exchange, num_ranks: int) -> None:
    """Rank 0's part of the count of an epoch."""
    plan.count_together([0], rank=0, world_size=num_ranks, exchange=exchange)


def count_alone(folder: Path, batch_size: int) -> dict[str, float]:
    """Seconds and memory of one rank that plans all windows of an epoch alone; the counts are saved."""
    before = read_memory()
    plan = build_plan(load_token_set(folder), unit="target_tokens", batch_size=batch_size)
    counted: list[Rows] = []

    def keep(mine: list[Rows]) -> list[list[Rows]]:
        counted.extend(mine)
        return [mine]

    seconds = timed(lambda: count_together(plan, exchange=keep, num_ranks=1), times=1, clock=time.process_time)
    np.save(folder.with_name(COUNTS.format(batch_size)), counted[0])
    after = read_memory()
    return {
        "windows": len(counted[0]),
        "steps": plan.num_steps(0),
        "all windows": seconds,
        "one window": seconds / len(counted[0]),
        "own memory": after.anonymous - before.anonymous,
        "mapped memory": after.of_files - before.of_files,
    }


def measure_shares(folder: Path, unit: Unit, batch_size: int, num_ranks: int) -> dict[str, float]:
    """How steps sampled over the whole epoch are dealt to the ranks."""
    plan = build_plan(load_token_set(folder), unit=unit, batch_size=batch_size)
    if unit == "target_tokens":
        counts = np.load(folder.with_name(COUNTS.format(batch_size)))
        count_together(plan, exchange=partial(exchange_known, counts=counts, num_ranks=num_ranks), num_ranks=num_ranks)
    last = plan.num_steps(0) - 1
    shares = [
        share_step(plan, Position(0, int(step)), num_ranks=num_ranks) for step in np.linspace(0, last, SAMPLED_STEPS)
    ]
    # the last step of an epoch is short, so its balance is not meaningful
    return {
        "steps": len(shares),
        "rows": median(len(share.rows) for share in shares),
        "micro-batches": median(share.num_micro_batches for share in shares),
        "fillers": median(share.num_fillers for share in shares),
        "balance": median(share.balance for share in shares),
        "worst balance": max(share.balance for share in shares[:-1]),
        "plan and deal a step": median(share.seconds for share in shares),
    }


def measure_order(num_rows: int) -> dict[str, float]:
    """Check that the order of an epoch has each row once; needs one byte of memory per row."""
    keys = permutation_keys(f"scale {num_rows}", seed=1, epoch=0)
    seen, seconds = np.zeros(num_rows, dtype=np.uint8), 0.0
    for start in range(0, num_rows, WINDOW_ROWS):
        began = time.process_time()
        places = np.arange(start, min(start + WINDOW_ROWS, num_rows), dtype=np.int64)
        rows = permute(places, num_rows=num_rows, keys=keys)
        seconds += time.process_time() - began
        seen[rows] += 1
    assert seen.min() == seen.max() == 1
    return {"rows seen once": num_rows, "seconds": seconds}


def fresh(action: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """The result of a function in its own process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(action, *arguments).result()


def measure_data(folder: Path, *, num_rows: int, num_ranks: int) -> dict[str, dict[str, float]]:
    """All figures about the plan, by topic."""
    found: dict[str, dict[str, float]] = {"order": fresh(measure_order, num_rows)}
    large: Mapping[Unit, int] = {"sequences": 64 * num_ranks, "target_tokens": 4096 * num_ranks}
    forget_pages(folder)
    found["first rank of a host, files on disk"] = fresh(
        measure_rank, folder, "sequences", large["sequences"], num_ranks, time.perf_counter
    )
    for size in (SMALL["target_tokens"], large["target_tokens"]):
        found[f"one rank counts an epoch of {size:,} target_tokens"] = fresh(count_alone, folder, size)
    units: Sequence[Unit] = ("sequences", "target_tokens")
    for unit in units:
        for size in (SMALL[unit], large[unit]):
            found[f"{size:,} {unit}"] = fresh(measure_rank, folder, unit, size, num_ranks, time.process_time)
        found[f"shares of {large[unit]:,} {unit}"] = fresh(measure_shares, folder, unit, large[unit], num_ranks)
    return found


def measure_run_folders(folder: Path, *, ranks: Iterable[int], steps: Iterable[int]) -> dict[str, Any]:
    """Files of run folders by ranks and steps, and the time to read the largest."""
    # here, so that the engine does not count as memory of a rank
    from tests.benchmarks.scale_run import crossed, measure_readers, write_run

    counts, lengths = sorted(ranks), sorted(steps)
    folders = {
        (count, length): write_run(folder / f"run-{count}-{length}", num_ranks=count, num_steps=length)
        for count in counts
        for length in lengths
    }
    return {
        "folders": [asdict(each) for each in folders.values()],
        "ranks × steps": {quantity: crossed(folders, quantity) for quantity in ("num_files", "num_bytes")},
        "readers": measure_readers(folder / f"run-{counts[-1]}-{lengths[-1]}", num_rows=100_000),
    }


def show(found: Mapping[str, Any], *, indent: str = "") -> None:
    """Print nested figures."""
    for name, value in found.items():
        if isinstance(value, Mapping):
            print(f"{indent}{name}:")
            show(value, indent=f"{indent}  ")
        elif isinstance(value, list):
            print(f"{indent}{name}:", *value, sep=f"\n{indent}  ")
        elif "memor" in name:
            print(f"{indent}{name}: {value / 2**20:,.1f} MiB")
        else:
            print(f"{indent}{name}: {value:,.5g}" if isinstance(value, float) else f"{indent}{name}: {value:,}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000_000)
    parser.add_argument("--ranks", type=int, default=512)
    parser.add_argument("--folder", type=Path, help="folder for temporary files; default: that of the system")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        needed, free = 8 * options.rows + 2**30, shutil.disk_usage(folder).free
        if free < needed:
            parser.error(
                f"{folder}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free: choose another --folder"
            )
        found: dict[str, Any] = {"rows": options.rows, "ranks": options.ranks, "cores": os.cpu_count()}
        found["run folder"] = measure_run_folders(folder, ranks=(8, options.ranks), steps=(10, 1000))
        show({"run folder": found["run folder"]})
        seconds = timed(lambda: write_token_set(folder / "tokens", num_rows=options.rows), times=1)
        print(f"lengths of {options.rows:,} rows written in {seconds:.0f} s", flush=True)
        found["data"] = measure_data(folder / "tokens", num_rows=options.rows, num_ranks=options.ranks)
        show({"data": found["data"]})
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
