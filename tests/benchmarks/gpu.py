"""Training at the published sizes on a GPU, in bf16, here and with Seq2SeqTrainer: `make bench-gpu`.

`python -m tests.benchmarks.gpu [--models m2m100,mt5] [--sides all] [--updates 20] [--repeats 1] [--peak 790] [--json FILE]` is
meant to take ten minutes with its defaults; `--sides all --repeats 3` is six times as much. M2M100-418M and mT5-small with
random weights. First our side alone, in updates of exactly 4,096 and 16,384 target tokens (32 tokens per row on either side):
the model's arithmetic as a share of the GPU's peak, [6 x (encoder x S + decoder x T) + 6 x head x T] / seconds / peak, where
encoder, decoder and head are multiply-adds per token, S source tokens and T target tokens; attention is not counted. Then the
batches of the cards (16 sentences; 16 x 32 sequences), with lengths distributed like translations and parses: updates per
second and peak memory, also with compiled layers and other cuts, compared with the Trainer with the same DeepSpeed settings and
without DeepSpeed. The sides take turns, each in its own process. `--tiny` uses small models and runs anywhere: it only shows
that the benchmark works. For evaluations see `python -m tests.benchmarks.evaluation --size mt5-small`, which uses the GPU if
there is one.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedModel,
)

from dstrain.data.encoding import ReadingRules
from dstrain.data.examples import Example
from dstrain.data.tokens import build_token_set
from dstrain.models.load import quiet_transformers
from dstrain.models.scratch import SPECIAL_IDS
from tests.benchmarks.training import describe_machine, measure_apart
from tests.benchmarks.training_case import FIRST_ID, Case, Ids, build_config, save_case, write_drawn_rows
from tests.benchmarks.training_sides import Job, Side

NAMES = {"m2m100": "M2M100-418M", "mt5": "mT5-small"}
KINDS = {"m2m100": "translation", "mt5": "parsing"}
CARD_ROWS = {"m2m100": (16, 1), "mt5": (16, 32)}
"""Rows per device batch, and number of accumulated batches."""
MULTIPLY_ADDS = {"m2m100": (176e6, 176e6, 131e6), "mt5": (22e6, 22e6, 128e6)}
"""Per token: of encoder, decoder and head."""
UPDATE_TOKENS = (4096, 16384)
ROW_TOKENS = 32
PRECISION = "bf16" if torch.cuda.is_available() else "fp32"
"""On a CPU the Trainer with DeepSpeed does not support bf16: its layer norms refuse mixed types there."""
MAX_BUDGET = 32_768
"""Padded tokens of a micro-batch, source and target together."""
TINY = {"m2m100": {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1}, "mt5": {"d_model": 32, "num_layers": 1}}
OVERHEADS = (512, 8192)
"""Measured besides the default of the device, to check that default."""
TRAINERS = {"Trainer": False, "Trainer, DeepSpeed": True}
DEFAULT_SIDES = ("4096 tokens", "dstrain", *TRAINERS)
"""Those that are measured unless others are asked for."""


@dataclass(frozen=True)
class Shape:
    """One model and its rows."""

    model: str
    folder: Path
    rows: dict[str, Path]
    """Token sets: `equal` lengths and `drawn` ones."""

    def case(self, rows: str) -> Case:
        """The input of a side."""
        special = SPECIAL_IDS[self.model]
        start = special["pad_id"] if self.model == "mt5" else special["eos_id"]
        path = str(self.rows[rows])
        return Case(KINDS[self.model], self.model, rows, path, path, str(self.folder), special["pad_id"], start)


def build_model(model: str, *, is_tiny: bool) -> PreTrainedModel:
    """Random weights of the published size."""
    torch.manual_seed(0)
    special = SPECIAL_IDS[model]
    ids = {f"{name}_token_id": special[f"{name}_id"] for name in ("pad", "eos")}
    small = TINY[model] if is_tiny else {}
    if model == "mt5":
        values = {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "vocab_size": 250_112}
        return MT5ForConditionalGeneration(
            MT5Config(**(values | small), decoder_start_token_id=ids["pad_token_id"], **ids)
        )
    values = {"vocab_size": 128_112, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0}
    start = {"decoder_start_token_id": ids["eos_token_id"]}
    return M2M100ForConditionalGeneration(M2M100Config(**(values | small), **start, **ids))


def make_shape(folder: Path, *, model: str, is_tiny: bool) -> Shape:
    """Weights and rows, written to a folder."""
    build_model(model, is_tiny=is_tiny).save_pretrained(folder / model)
    kind, end_id = KINDS[model], SPECIAL_IDS[model]["eos_id"]
    config = build_config(
        folder, kind=kind, model=model, batch_tokens=1, budget=1, num_updates=1, warmup_steps=0, seed=0
    )
    words = " ".join(str(FIRST_ID + number) for number in range(ROW_TOKENS - 1))
    equal = (Example(words, words, words, words, None, None, None, f"row {number}") for number in range(100_000))
    rows = {"equal": folder / f"{model}-equal", "drawn": folder / f"{model}-drawn"}
    reading = ReadingRules(config.task, config.data.rules, Ids(end_id=end_id), split="train")
    build_token_set(equal, reading=reading, folder=rows["equal"])
    write_drawn_rows(rows["drawn"], config=config, seed=0, num_rows=100_000, end_id=end_id)
    return Shape(model, folder / model, rows)


def plan_jobs(shape: Shape, *, num_updates: int) -> dict[str, Job]:
    """The jobs of a shape by the name of their side."""
    base = Job(
        side=Side("dstrain_sequences", MAX_BUDGET), case="", rows_per_update=0, num_updates=num_updates + 5, num_warm_up=5,
        precision=PRECISION,
    )  # fmt: skip
    size, accumulation = CARD_ROWS[shape.model]
    card = replace(base, rows_per_update=size * accumulation)
    return {
        **{f"{tokens} tokens": replace(base, rows_per_update=tokens // ROW_TOKENS) for tokens in UPDATE_TOKENS},
        "dstrain": card,
        "dstrain, compiled": replace(card, compile=True),
        **{f"dstrain, overhead {tokens}": replace(card, overhead=tokens) for tokens in OVERHEADS},
        **{name: replace(card, side=Side("random", size), deepspeed=on) for name, on in TRAINERS.items()},
    }


def share_of_peak(model: str, *, result: Mapping[str, Any], peak: float) -> float:
    """The model's arithmetic as a share of what the GPU could do in that time."""
    encoder, decoder, head = MULTIPLY_ADDS[model]
    source, target = result["source_tokens"], result["target_tokens"]
    return float(6 * (encoder * source + decoder * target + head * target) / result["seconds"] / peak)


def measure_shape(shape: Shape, *, options: argparse.Namespace) -> dict[str, Any]:
    """Measures all sides of a shape in turn; returns medians and ratios."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number in range(options.repeats):
        jobs = plan_jobs(shape, num_updates=options.updates)
        for name, job in jobs.items():
            if options.sides != "all" and name not in options.sides.split(";"):
                continue
            path = shape.folder / f"{'equal' if name.endswith('tokens') else 'drawn'}.json"
            save_case(shape.case(path.stem), path=path)
            result = measure_apart(replace(job, case=str(path), seed=number), threads=options.threads)
            result["updates_per_second"] = result["num_updates"] / result["seconds"]
            found.setdefault(name, []).append(result)
            print(f"{NAMES[shape.model]} {name:<22} {result['updates_per_second']:.2f} updates/s", flush=True)
    sides = {name: summarise(results) for name, results in found.items()}
    for name in sides:
        if name.endswith("tokens"):
            shares = [share_of_peak(shape.model, result=result, peak=options.peak * 1e12) for result in found[name]]
            sides[name]["share_of_peak"] = median(shares)
    against = {
        name: {
            "speed": sides["dstrain"]["updates_per_second"] / sides[name]["updates_per_second"],
            "memory": sides["dstrain"]["peak_mib"] / sides[name]["peak_mib"],
        }
        for name in TRAINERS
        if {"dstrain", name} <= sides.keys()
    }
    return {"model": NAMES[shape.model], "sides": sides, "against": against}


def summarise(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians and ranges."""
    summary: dict[str, Any] = {"num_repeats": len(results)}
    for figure in ("updates_per_second", "target_tokens_per_second", "peak_mib"):
        values = [result[figure] for result in results]
        summary |= {figure: median(values), f"{figure}_range": [min(values), max(values)]}
    return summary


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--models", default=",".join(NAMES), help="m2m100, mt5 or both, with a comma")
    parser.add_argument("--sides", default=";".join(DEFAULT_SIDES), help="names with a semicolon, or `all`")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--peak", type=float, default=790.0, help="of the GPU in bf16, TFLOP/s: 790 is an H200's")
    parser.add_argument("--tiny", action="store_true", help="small models, on whatever device there is")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not (options.tiny or torch.cuda.is_available()):
        parser.error("no GPU is here; --tiny tries the benchmark itself without one")
    quiet_transformers()
    machine = describe_machine(threads=options.threads)
    machine["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    found = []
    with tempfile.TemporaryDirectory() as name:
        for model in options.models.split(","):
            shape = make_shape(Path(name), model=model, is_tiny=options.tiny)
            found.append(measure_shape(shape, options=options))
    for entry in found:
        for name, side in entry["sides"].items():
            share = f", {side['share_of_peak']:.1%} of peak" if "share_of_peak" in side else ""
            print(
                f"{entry['model']} {name:<22} {side['updates_per_second']:8.2f} updates/s, "
                f"{side['target_tokens_per_second']:,.0f} target tokens/s, {side['peak_mib']:,.0f} MiB{share}"
            )
        for name, ratio in entry["against"].items():
            print(
                f"{entry['model']} against {name}: {ratio['speed']:.2f} × as fast, {ratio['memory']:.2f} × the memory"
            )
    machine["load_after"] = os.getloadavg()[0]
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        report = {"tiny": options.tiny, "peak": options.peak, "models": found, "machine": machine}
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
