"""Training here and with transformers' Seq2SeqTrainer, side by side: real target tokens per second, padding, memory, loss.

`python -m tests.benchmarks.training [--kind translation] [--model mt5] [--repeats 3] [--updates 8] [--update-tokens 4096]
[--threads 2] [--trainer-batches 8 16 32 64] [--json FILE] [--data FILE.tsv … --held-out FILE.tsv …]` (needs `pip install
accelerate` for the Trainer). Every figure comes from its own process, and the sides take turns. The first round measures all
sizes of each side; later rounds measure the best size, the Trainer's batch of 16 and our default. The results are medians and
their ratios. All sides have the same rows, initial weights, fp32, schedule, clipping, threads, and on average the same target
tokens per update. The time includes the loader, but not the first update.

`--losses N` trains N smaller updates with each of 3 seeds instead, and compares the loss on held-out rows; N is a multiple of 50.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

from dstrain.data.arrays import Rows
from dstrain.data.cuts import Cut
from dstrain.data.plan import Plan, Position
from dstrain.data.tokens import TokenSet
from dstrain.models.load import quiet_transformers
from tests.benchmarks.training_case import LENGTHS, SHAPES, Case, make_case, save_case
from tests.benchmarks.training_sides import COUNTED, Job, Side, write_job

TRAINER_BATCHES = (8, 16, 32, 64)
BUDGETS = (2048, 8192)
DEFAULT_BUDGET = 8192
"""`machine.micro_batch_tokens` if a recipe does not set it."""
SAME_DEFAULT = Side("random", 16)
OURS = Side("dstrain", DEFAULT_BUDGET)
SEEN = Side("dstrain_seen", DEFAULT_BUDGET)
SAME_ROWS = Side("dstrain_sequences", DEFAULT_BUDGET)
"""Updates by rows instead of target tokens: as many rows in random order as the Trainer's, so the same is learned."""
UPDATE_TOKENS = 4096
LOSS_UPDATE_ROWS = 64
MEGA_BATCH = 50
"""Updates after which group_by_length has seen long rows and short ones equally."""
PACKAGES = ("dstrain", "torch", "transformers", "accelerate", "deepspeed", "numpy")
FIGURES = (
    "target_tokens_per_second",
    "target_tokens_per_core_second",
    "target_efficiency",
    "source_efficiency",
    "peak_mib",
    "seconds",
)
REAL_DATA = {
    "translation": (["ko_en/python_docs.train.tsv", "ko_en/tatoeba.tsv"], ["ko_en/python_docs.dev.tsv"]),
    "parsing": (["mtop/train.tsv"], ["mtop/eval.tsv"]),
}
ORIGINS = {
    "translation": "Korean to English, Python documentation and Tatoeba",
    "parsing": "MTOP, English, pointer form",
}

Measured = dict[Side, list[dict[str, Any]]]


def describe_machine(*, threads: int) -> dict[str, Any]:
    """The machine and the versions of a measurement."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": models[0].split(":", 1)[1].strip() if models else platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_before": os.getloadavg()[0],
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def find_real_rows(kind: str) -> tuple[list[str], list[str]] | None:
    """Files of real rows, if the folder of real data exists; see tests/conftest.py."""
    beside_the_project = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("DSTRAIN_REAL_DATA") or beside_the_project)
    train, held_out = ([str(folder / name) for name in names] for names in REAL_DATA[kind])
    return (train, held_out) if all(Path(path).exists() for path in [*train, *held_out]) else None


def measure_apart(job: Job, *, threads: int) -> dict[str, Any]:
    """The figures of a side, measured in its own process."""
    command = [sys.executable, "-m", "tests.benchmarks.training_sides", write_job(job)]
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = os.environ | limits | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{job.side}:\n{done.stderr}")
    # libraries such as NCCL print to the same stream, before the answer and after it
    found: dict[str, Any] = json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1])
    return found


def measure_rounds(sides: Iterable[Side], *, repeats: int, measure: Callable[[Side, int], dict[str, Any]]) -> Measured:
    """Measures every size once, then the chosen ones in turn; `measure` is called with a side and the number of the round."""
    found: Measured = {}
    for side in sides:
        found[side] = [measure(side, 0)]
        show(side, found[side][-1])
    for number in range(1, repeats):
        for side in chosen(found):
            found[side].append(measure(side, number))
            show(side, found[side][-1])
    return found


def chosen(found: Measured) -> list[Side]:
    """The fastest size of each side in the first round, and the defaults."""
    first = {side: results[0]["target_tokens_per_second"] for side, results in found.items()}
    names = dict.fromkeys(side.name for side in found)
    best = [max((side for side in found if side.name == name), key=first.__getitem__) for name in names]
    return list(dict.fromkeys([OURS, SEEN, SAME_ROWS, SAME_DEFAULT, *best]))


def show(side: Side, result: Mapping[str, Any]) -> None:
    """Print the result of a side."""
    print(
        f"{side!s:<22} {result['target_tokens_per_second']:7,.0f} target tokens/s  real: target "
        f"{result['target_efficiency']:.0%}, source {result['source_efficiency']:.0%}  {result['peak_mib']:6,.0f} MiB",
        flush=True,
    )


def summarise(side: Side, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians and ranges."""
    row: dict[str, Any] = {"name": side.name, "size": side.size, "num_repeats": len(results)}
    for figure in FIGURES:
        values = [result[figure] for result in results]
        row |= {figure: median(values), f"{figure}_range": [min(values), max(values)]}
    counts = {name: [result[name] for result in results] for name in COUNTED}
    mean = median(result["target_tokens"] / result["num_updates"] for result in results)
    return row | {"target_tokens_per_update": mean, "counts": counts}


def compare(found: Measured) -> list[dict[str, Any]]:
    """Ratios of medians, ours over each of the Trainer's, and round by round."""
    ratios = []
    finalists = chosen(found)
    for ours in (side for side in finalists if side.is_ours):
        for other in (side for side in finalists if not side.is_ours):
            mine, theirs = ([result["target_tokens_per_second"] for result in found[side]] for side in (ours, other))
            rounds = [a / b for a, b in zip(mine, theirs, strict=True)]
            cores = [
                median(result["target_tokens_per_core_second"] for result in found[side]) for side in (ours, other)
            ]
            memory, resident = (
                [median(result[figure] for result in found[side]) for side in (ours, other)]
                for figure in ("peak_mib", "resident_mib")
            )
            ratios.append(
                {
                    "ours": str(ours),
                    "other": str(other),
                    "speed": median(mine) / median(theirs),
                    "speed_range": [min(rounds), max(rounds)],
                    "speed_by_cores": cores[0] / cores[1],
                    "memory": memory[0] / memory[1],
                    "resident": resident[0] / resident[1],
                }
            )
    return ratios


def padding_of_plan(tokens: TokenSet, *, batch_tokens: int, rows_per_update: int) -> list[dict[str, Any]]:
    """The share of positions that are real tokens in an epoch of a plan, for each of our sides; nothing is trained."""
    found = []
    for side in (side for side in our_sides() if side.name != SEEN.name):  # with the padding of OURS
        plan = Plan(
            tokens.source_lengths,
            tokens.target_lengths,
            fingerprint=tokens.fingerprint,
            seed=0,
            batch_size=rows_per_update if side.batch_unit == "sequences" else batch_tokens,
            batch_unit=side.batch_unit,
            cut=Cut(side.size),
        )
        steps = [plan.step(Position(0, step)) for step in range(plan.num_steps(0))]
        pieces = [rows for step in steps for rows in step.micro_batches]
        found.append(asdict(side) | {"micro_batches": len(pieces) / len(steps)} | real_shares(pieces, tokens=tokens))
    return found


def our_sides() -> list[Side]:
    """Our sides in all sizes."""
    return [*(Side(name, budget) for name in ("dstrain", "dstrain_seen") for budget in BUDGETS), SAME_ROWS]


def padding_of_trainer(tokens: TokenSet, *, rows_per_update: int) -> list[dict[str, Any]]:
    """The share of positions that are real tokens in an epoch of each of the Trainer's orders, for each per-device batch."""
    torch.manual_seed(0)
    orders = {
        "random": torch.randperm(tokens.num_rows).tolist(),
        "group_by_length": get_length_grouped_indices(tokens.source_lengths.tolist(), rows_per_update),
    }
    return [
        {"name": name, "size": size}
        | real_shares([np.asarray(order[start : start + size]) for start in range(0, len(order), size)], tokens=tokens)
        for name, order in orders.items()
        for size in TRAINER_BATCHES
    ]


def real_shares(pieces: Sequence[Rows], *, tokens: TokenSet) -> dict[str, float]:
    """Real tokens divided by positions of the padded tensors, for source and target."""
    return {
        name: sum(int(lengths[rows].sum()) for rows in pieces)
        / sum(len(rows) * int(lengths[rows].max()) for rows in pieces)
        for name, lengths in (("source", tokens.source_lengths), ("target", tokens.target_lengths))
    }


def rows_per_update(tokens: TokenSet, *, update_tokens: int = UPDATE_TOKENS) -> int:
    """Number of rows with about the target tokens of an update; a multiple of every per-device batch."""
    largest = max(TRAINER_BATCHES)
    return largest * max(1, round(update_tokens / float(tokens.target_lengths.mean()) / largest))


def measure_speed(case: Case, *, path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measures all sides of a case: the rows of the table, ratios, and padding from the plan alone."""
    tokens = case.load_rows("train")
    sides = [
        *our_sides(),
        *(Side(name, batch) for name in ("random", "group_by_length") for batch in options.trainer_batches),
    ]
    num_rows = rows_per_update(tokens, update_tokens=options.update_tokens)

    def measure(side: Side, number: int) -> dict[str, Any]:
        job = Job(
            side=side,
            case=str(path),
            rows_per_update=num_rows,
            num_updates=options.warm_up + options.updates,
            num_warm_up=options.warm_up,
            seed=number,
        )
        return measure_apart(job, threads=options.threads)

    found = measure_rounds(sides, repeats=options.repeats, measure=measure)
    return {
        "rows_per_update": num_rows,
        "num_updates": options.updates,
        "sides": [summarise(side, results) for side, results in found.items()],
        "finalists": [str(side) for side in chosen(found)],
        "ratios": compare(found),
        "padding": {
            "batch_tokens": options.update_tokens,
            "dstrain": padding_of_plan(tokens, batch_tokens=options.update_tokens, rows_per_update=num_rows),
            "trainer": padding_of_trainer(tokens, rows_per_update=num_rows),
        },
    }


def measure_losses(*, path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Held-out loss per target token after the same number of tokens on each side, by seed."""
    sides = [OURS, SAME_ROWS, SAME_DEFAULT, Side("group_by_length", SAME_DEFAULT.size)]
    found: dict[str, list[dict[str, Any]]] = {str(side): [] for side in sides}
    for seed in range(options.seeds):
        for side in sides:
            job = Job(
                side=side,
                case=str(path),
                rows_per_update=LOSS_UPDATE_ROWS,
                num_updates=options.losses,
                num_warm_up=0,
                seed=seed,
                held_out=True,
            )
            result = measure_apart(job, threads=options.threads)
            found[str(side)].append({name: result[name] for name in ("held_out_loss", "target_tokens_seen")})
            print(
                f"seed {seed}  {side!s:<20} held-out loss {result['held_out_loss']:.4f} after "
                f"{result['target_tokens_seen']:,} target tokens",
                flush=True,
            )
    return {"rows_per_update": LOSS_UPDATE_ROWS, "num_updates": options.losses, "sides": found}


def print_ratios(found: Mapping[str, Any]) -> None:
    """Print the ratios and the padding."""
    for ratio in found["ratios"]:
        low, high = ratio["speed_range"]
        print(
            f"{ratio['ours']} against {ratio['other']}: {ratio['speed']:.2f} × ({low:.2f} to {high:.2f}), by core time "
            f"{ratio['speed_by_cores']:.2f} ×; peak memory {ratio['memory']:.2f} ×, "
            f"of the process {ratio['resident']:.2f} ×"
        )
    for name in ("dstrain", "trainer"):
        for row in found["padding"][name]:
            side = f"{row['name']} {row['size']}"
            print(f"{side:<20} real over an epoch: target {row['target']:.1%}, source {row['source']:.1%}")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=LENGTHS, default="translation")
    parser.add_argument("--model", choices=SHAPES, default="mt5")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--updates", type=int, default=8, help="number of measured updates")
    parser.add_argument("--update-tokens", type=int, default=UPDATE_TOKENS, help="target tokens of an update, about")
    parser.add_argument("--trainer-batches", type=int, nargs="+", choices=TRAINER_BATCHES, default=TRAINER_BATCHES)
    parser.add_argument("--warm-up", type=int, default=1, help="number of updates before the measured ones")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--data", nargs="+", default=[], help="TSV files to train on, instead of the real rows that are found"
    )
    parser.add_argument("--held-out", nargs="+", default=[], help="TSV files of held-out rows; required with --data")
    parser.add_argument("--drawn", action="store_true", help="draw random rows even if real ones are found")
    parser.add_argument("--losses", type=int, metavar="UPDATES", help="compare held-out losses instead")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    return parser


def main() -> None:
    """Measure and print."""
    parser = build_parser()
    options = parser.parse_args()
    if bool(options.data) != bool(options.held_out):
        parser.error("--data and --held-out go together")
    if options.warm_up < 1:
        parser.error("--warm-up must be at least 1: the first update includes the setup of the libraries")
    if options.losses and options.losses % MEGA_BATCH:
        parser.error(f"--losses must be a multiple of {MEGA_BATCH}, so that group_by_length has seen as many tokens")
    quiet_transformers()
    machine = describe_machine(threads=options.threads)
    train, held_out, origin = options.data, options.held_out, "files given by --data"
    if not train and not options.drawn and (real := find_real_rows(options.kind)):
        train, held_out = real
        origin = ORIGINS[options.kind]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "case.json"
        case = make_case(folder, kind=options.kind, model=options.model, train=train, held_out=held_out, origin=origin)
        save_case(case, path=path)
        rows = case.load_rows("train")
        found: dict[str, Any] = {
            "benchmark": "training losses" if options.losses else "training",
            "kind": case.kind,
            "model": case.model,
            "rows": {
                "origin": case.origin,
                "number": rows.num_rows,
                "target_tokens": float(rows.target_lengths.mean()),
            },
            "machine": machine,
        }
        if options.losses:
            found |= measure_losses(path=path, options=options)
        else:
            found |= measure_speed(case, path=path, options=options)
            print_ratios(found)
    machine["load_after"] = os.getloadavg()[0]
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
