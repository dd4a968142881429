"""What a run learns with `model.vocabulary: seen`, against the whole vocabulary: exact match on MTOP after the same steps.

`python -m tests.benchmarks.quality [--steps 1000] [--seeds 3] [--threads 1] [--json FILE]` (needs the real rows of
tests/conftest.py). Both start from the same weights: those of a small mT5 whose embeddings have 16,384 rows, many more than MTOP
uses. Each seed has its own order of rows and dropout, the same on both sides. Times are not measured: the machine may be busy.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from statistics import mean
from typing import Any

from dstrain.config.load import dump_config
from dstrain.config.schema import RunConfig
from dstrain.models.load import quiet_transformers
from dstrain.run_folder.record import load_record
from tests.benchmarks.recipe import KIND, MODEL, build_recipe, prepare_sides
from tests.benchmarks.training import ORIGINS, describe_machine, find_real_rows

ROWS_PER_UPDATE = 64
VOCABULARIES = ("full", "seen")


def build_quality_recipe(folder: Path, *, train: list[str], held_out: list[str], num_steps: int) -> RunConfig:
    """The recipe of both sides: one evaluation of all rows, at the end."""
    values = build_recipe(folder, train=train, held_out=held_out).model_dump()
    values["training"] |= {
        "batch_size": ROWS_PER_UPDATE,
        "max_steps": num_steps,
        "warmup_steps": num_steps // 10,
    }
    values["evaluation"] = {"every_steps": num_steps, "rehearsal": False}
    return RunConfig.model_validate(values)


def train_once(recipe: Path, *, seed: int, vocabulary: str, output: Path, threads: int) -> dict[str, Any]:
    """The scores at the end of a run."""
    overrides = [f"seed={seed}", f"model.vocabulary={vocabulary}", f"output_dir={output}", "checkpoint.every_minutes=0"]
    command = [sys.executable, "launch/train.py", "--config", str(recipe), *overrides]
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | limits)
    if done.returncode:
        raise SystemExit(f"seed {seed}, {vocabulary}:\n{done.stderr[-4000:]}")
    record = load_record(output)
    assert record.final is not None
    model = record.info.model
    return {
        "exact_match": record.final.scores["exact_match"],
        "loss": record.final.scores["loss"],
        "num_rows": record.final.num_rows,
        "ids": model.trained_ids,
    }


def main() -> None:
    """Train, and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    quiet_transformers()
    real = find_real_rows(KIND)
    if real is None:
        print("left out: set DSTRAIN_REAL_DATA to the folder that has mtop/train.tsv and mtop/eval.tsv")
        return
    found: dict[str, list[dict[str, Any]]] = {vocabulary: [] for vocabulary in VOCABULARIES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_sides(folder, train=real[0], held_out=real[1])
        recipe = folder / "quality.yaml"
        recipe.write_text(
            dump_config(build_quality_recipe(folder, train=real[0], held_out=real[1], num_steps=options.steps))
        )
        for seed in range(options.seeds):
            for vocabulary in VOCABULARIES:
                output = folder / f"{vocabulary}-{seed}"
                result = train_once(recipe, seed=seed, vocabulary=vocabulary, output=output, threads=options.threads)
                found[vocabulary].append(result)
                print(f"seed {seed}  {vocabulary:<5} exact match {result['exact_match']:.4f}  {result}", flush=True)
    for vocabulary, results in found.items():
        print(f"{vocabulary}: exact match {mean(result['exact_match'] for result in results):.4f} on average")
    report = {
        "kind": KIND, "model": MODEL, "origin": ORIGINS[KIND], "num_steps": options.steps, "rows_per_update": ROWS_PER_UPDATE,
        "sides": found, "machine": describe_machine(threads=options.threads),
    }  # fmt: skip
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
