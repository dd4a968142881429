"""The wall time of a complete recipe, here and with transformers' Seq2SeqTrainer: training, 19 evaluations, saves, exports.

`python -m tests.benchmarks.recipe [--repeats 3] [--threads 2] [--json FILE]` (needs `pip install accelerate` for the Trainer, and
the real rows of tests/conftest.py). The recipe is that of the card t5-small-pointer-mtop, scaled down: a small mT5 on MTOP in
pointer form, updates of accumulated batches of 16 rows, greedy evaluations. A side is one command in its own process, from start
to end, including imports; the sides take turns. Both read the same files with the same tokenizer, start from the same weights,
and have the same number of updates, of evaluations on the same rows and of checkpoints with optimizer state. The Trainer takes
rows in random order, which is its default; its loss is corrected to the mean over the update; its evaluations, in batches of 16,
compute loss, generated text and exact match. Our side runs the recipe with `launch/train.py`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Seq2SeqTrainingArguments

from dstrain.config.load import dump_config
from dstrain.config.schema import RunConfig
from dstrain.evaluation.generate import plan_cap
from dstrain.models.families import max_positions
from dstrain.models.load import quiet_transformers
from dstrain.run_folder.record import load_record
from tests.benchmarks.training import ORIGINS, describe_machine, find_real_rows
from tests.benchmarks.training_case import (
    LEARNING_RATE,
    MAX_GRAD_NORM,
    Case,
    build_config,
    make_case,
    read_case,
    save_case,
)
from tests.benchmarks.training_sides import CountingTrainer, Rows, Stopwatch

NUM_EVALUATIONS = 19
"""As on the card of t5-small-pointer-mtop."""
SIDES = ("dstrain", "dstrain_seen", "trainer")
"""`dstrain_seen` is the same with `model.vocabulary: seen`."""
EVALUATION_BATCH = 16


@dataclass(frozen=True)
class Size:
    """A recipe, scaled down."""

    per_device: int
    accumulation: int
    steps_between: int
    """Updates between evaluations."""
    max_rows: int
    """Evaluation rows."""
    num_beams: int

    @property
    def num_steps(self) -> int:
        """Updates of the whole run."""
        return NUM_EVALUATIONS * self.steps_between


SIZE = Size(per_device=16, accumulation=32, steps_between=3, max_rows=128, num_beams=1)
"""Batch and accumulation as on the card, which has 200 updates between evaluations, of 2,235 rows."""
KIND, MODEL = "parsing", "mt5"


def build_recipe(folder: Path, *, train: list[str], held_out: list[str]) -> RunConfig:
    """The recipe of our side, which starts from the weights and the tokenizer in `folder`."""
    size = SIZE
    base = build_config(
        folder, kind=KIND, model=MODEL, batch_tokens=1, budget=8192, num_updates=size.num_steps,
        warmup_steps=size.num_steps // 10, seed=0, train=train, held_out=held_out,
    )  # fmt: skip
    values = base.model_dump()
    values["model"] = {"name": str(folder / "model")}
    values["training"] |= {"batch_size": size.per_device * size.accumulation, "batch_unit": "sequences"}
    values["evaluation"] = {"every_steps": size.steps_between, "num_beams": size.num_beams, "max_rows": size.max_rows}
    return RunConfig.model_validate(values)


def run_trainer(folder: Path, *, output: Path) -> dict[str, Any]:
    """Runs the complete recipe with Seq2SeqTrainer; returns its last evaluation."""
    case = read_case(folder / "case.json")
    size, model, tokens = SIZE, case.load_model(), case.load_rows("eval")
    tokenizer = AutoTokenizer.from_pretrained(case.weights)
    cap = plan_cap(
        RunConfig.model_validate_json((folder / "recipe.json").read_text()).evaluation,
        longest_reference=int(tokens.target_lengths.max()),
        max_positions=max_positions(model.config).target,
    )
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(output), per_device_train_batch_size=size.per_device, gradient_accumulation_steps=size.accumulation,
        per_device_eval_batch_size=EVALUATION_BATCH, max_steps=size.num_steps, learning_rate=LEARNING_RATE,
        warmup_steps=size.num_steps // 10, max_grad_norm=MAX_GRAD_NORM, lr_scheduler_type="linear", weight_decay=0.0, seed=0,
        eval_strategy="steps", eval_steps=size.steps_between, save_strategy="steps", save_steps=size.steps_between,
        save_total_limit=2, load_best_model_at_end=True, metric_for_best_model="score", predict_with_generate=True,
        generation_max_length=cap.max_new_tokens + 1, generation_num_beams=size.num_beams, logging_steps=50, report_to=[],
        disable_tqdm=True, use_cpu=True,
    )  # fmt: skip

    def score(predicted: Any) -> dict[str, float]:
        texts = [
            tokenizer.batch_decode(np.where(ids < 0, case.pad_id, ids), skip_special_tokens=True)
            for ids in (predicted.predictions, predicted.label_ids)
        ]
        return {"score": 100.0 * float(np.mean([a == b for a, b in zip(*texts, strict=True)]))}

    trainer = CountingTrainer(
        model=model, args=arguments, train_dataset=Rows(case.load_rows("train")),
        eval_dataset=torch.utils.data.Subset(Rows(tokens), range(min(size.max_rows, tokens.num_rows))),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=model), processing_class=tokenizer, compute_metrics=score,
        watch=Stopwatch(num_warm_up=0, num_updates=size.num_steps), num_blocks=None,
    )  # fmt: skip
    trainer.train()
    trainer.save_model(str(output / "final"))
    evaluations = [row for row in trainer.state.log_history if "eval_loss" in row]
    last = evaluations[-1]
    return {"num_evaluations": len(evaluations), "loss": last["eval_loss"], "score": last["eval_score"]}


def run_ours(output: Path) -> dict[str, Any]:
    """The last evaluation of a finished run."""
    record = load_record(output)
    assert record.final is not None
    assert record.status == "finished"
    return {
        "num_evaluations": len(record.eval_rows),
        "loss": record.final.scores["loss"],
        "score": 100.0 * record.final.scores["exact_match"],
    }


def measure_apart(side: str, *, folder: Path, threads: int) -> dict[str, Any]:
    """Seconds of the complete command of a side, and its last evaluation."""
    output = Path(tempfile.mkdtemp(dir=folder, prefix=f"{side}-"))
    if side != "trainer":
        own = [f"output_dir={output}", "checkpoint.every_minutes=0"]  # as many checkpoints as the other side saves
        own += ["model.vocabulary=seen"] if side == "dstrain_seen" else []
        command = ["launch/train.py", "--config", str(folder / "recipe.yaml"), *own]
    else:
        command = ["-m", "tests.benchmarks.recipe", "--side", str(folder), str(output)]
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    environment = os.environ | limits | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, env=environment)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{side}:\n{done.stderr[-4000:]}")
    ended = json.loads(done.stdout.splitlines()[-1]) if side == "trainer" else run_ours(output)
    shutil.rmtree(output)
    return {"seconds": seconds} | ended


def compare(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    """The ratio of medians of the seconds, and its range over the rounds."""
    mine, others = ([result["seconds"] for result in results] for results in (ours, theirs))
    rounds = [other / own for own, other in zip(mine, others, strict=True)]
    return {"speed": median(others) / median(mine), "range": [min(rounds), max(rounds)]}


def prepare_sides(folder: Path, *, train: list[str], held_out: list[str]) -> Case:
    """Write weights, tokenizer and recipe to a folder that both sides read."""
    case = make_case(folder, kind=KIND, model=MODEL, train=train, held_out=held_out, origin=ORIGINS[KIND])
    for file in (folder / "run" / "tokenizer").iterdir():
        shutil.copy(file, folder / "model")
    recipe = build_recipe(folder, train=train, held_out=held_out)
    (folder / "recipe.yaml").write_text(dump_config(recipe))
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    save_case(case, path=folder / "case.json")
    return case


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", nargs=2, type=Path, metavar=("CASE", "OUTPUT"), help="be the Trainer's side")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    quiet_transformers()
    if options.side:
        print(json.dumps(run_trainer(options.side[0], output=options.side[1])))
        return
    real = find_real_rows(KIND)
    if real is None:
        print("left out: set DSTRAIN_REAL_DATA to the folder that has mtop/train.tsv and mtop/eval.tsv")
        return
    machine = describe_machine(threads=options.threads)
    with tempfile.TemporaryDirectory() as name:
        case = prepare_sides(Path(name), train=real[0], held_out=real[1])
        found: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for _ in range(options.repeats):
            for side in SIDES:
                result = measure_apart(side, folder=Path(name), threads=options.threads)
                found[side].append(result)
                print(f"{side:<12} {result['seconds']:.0f} s  {shown(result)}", flush=True)
    ratios = {side: compare(found[side], found["trainer"]) for side in SIDES if side != "trainer"}
    for side, ratio in ratios.items():
        print(f"{side}: {ratio['speed']:.2f} times as fast ({ratio['range'][0]:.2f} to {ratio['range'][1]:.2f})")
    machine["load_after"] = os.getloadavg()[0]
    report = {
        "kind": case.kind, "model": case.model, "origin": case.origin, "size": asdict(SIZE),
        "sides": found, "ratios": ratios, "machine": machine,
    }  # fmt: skip
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def shown(result: Mapping[str, Any]) -> str:
    """The last evaluation of a side, as printed."""
    return f"{result['num_evaluations']} evaluations, the last: loss {result['loss']:.4f}, score {result['score']:.2f}"


if __name__ == "__main__":
    main()
