"""Compares the throughput of `dstrain predict` with plain `generate()` on the same model folder and the same rows.

`python -m tests.benchmarks.predict [RECIPE] [key=value …] [--model FOLDER --input FILE] [--beams 1 4] [--rounds 3]`. The plain
way is that of the model card: the tokenizer and the model of transformers, 16 rows at a time in the order of the file, with
the settings of the folder. Ours is all of `dstrain predict` after the model is loaded, reading and writing included. Without
a `--model` the recipe's model is trained for `--steps` steps, as in the benchmark of the evaluation, and predicts the sources
of its evaluation rows. Both run in turn in one process; results are ratios of medians, of wall-clock time and of the time of
all cores, which says more on a machine with other work. `--json FILE` writes all figures.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from dstrain.config.load import load_config
from dstrain.evaluation.metrics import one_line
from dstrain.models.load import quiet_transformers
from dstrain.models.save import export_model
from dstrain.run.export import generation_settings
from dstrain.run.predict import predict_rows
from dstrain.run.predict_model import Predictor, load_predictor
from dstrain.run.predict_request import PredictRequest, parse_arguments, plan_prediction
from tests.benchmarks.evaluation import DEVICE, STOCK_BATCH_SIZE, build_case, timed

RANKS = Ranks(process=read_process_info({}), device=DEVICE, group=None)


def make_model(options: argparse.Namespace, *, folder: Path) -> tuple[Path, Path]:
    """A model folder, and a file with the sources of the recipe's evaluation rows."""
    case = build_case(
        load_config(options.recipe, overrides=options.overrides), folder=folder, num_steps=options.steps, size=None
    )
    given = {"config": case.config, "tokenizer": case.tokenizer, "tokens": case.tokens}
    settings = generation_settings(case.model, **given)
    export_model(case.model, tokenizer=case.tokenizer, folder=folder / "model", generation=settings, step=options.steps)
    rows = folder / "sources.txt"
    rows.write_text("".join(f"{one_line(example.raw_source)}\n" for example in case.tokens.examples), encoding="utf-8")
    return folder / "model", rows


def predict_stock(model: Any, *, tokenizer: Any, rows: Path, output: Path, beams: int) -> None:
    """The rows in the order of the file, 16 at a time."""
    texts = rows.read_text(encoding="utf-8").splitlines()
    with output.open("w", encoding="utf-8") as file, torch.no_grad():
        for first in range(0, len(texts), STOCK_BATCH_SIZE):
            batch = tokenizer(texts[first : first + STOCK_BATCH_SIZE], return_tensors="pt", padding=True).to(DEVICE)
            found = model.generate(**batch, num_beams=beams)
            file.writelines(f"{one_line(text)}\n" for text in tokenizer.batch_decode(found, skip_special_tokens=True))


def predict_ours(request: PredictRequest, *, predictor: Predictor) -> None:
    """All of `dstrain predict` after the model is loaded."""
    predict_rows(request, predictor=predictor, ranks=RANKS, total=None)


def compare(model: Path, *, rows: Path, beams: int, num_rounds: int) -> dict[str, Any]:
    """Runs both in turn; returns seconds, ratios and how many predictions differ."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = {name: Path(folder) / name for name in ("ours", "stock")}
        arguments = ["--format", "lines", "--input", rows, "--output", outputs["ours"], "--beams", beams]
        request = plan_prediction(parse_arguments([str(model), *map(str, arguments)], program="predict"))
        predictor = load_predictor(request, device=DEVICE)
        stock = AutoModelForSeq2SeqLM.from_pretrained(model).to(DEVICE).eval()
        settings = {"tokenizer": AutoTokenizer.from_pretrained(model), "rows": rows, "output": outputs["stock"]}
        times: dict[str, list[tuple[float, float]]] = {"ours": [], "stock": []}
        for _ in range(num_rounds):
            times["ours"].append(timed(partial(predict_ours, request, predictor=predictor))[0])
            times["stock"].append(timed(partial(predict_stock, stock, beams=beams, **settings))[0])
            print(f"beams {beams}: stock {times['stock'][-1][0]:.1f} s, ours {times['ours'][-1][0]:.1f} s", flush=True)
        texts = {name: path.read_text(encoding="utf-8").splitlines() for name, path in outputs.items()}
    return {
        "num_beams": beams,
        "num_rows": len(texts["ours"]),
        "seconds": {name: [clock for clock, _ in each] for name, each in times.items()},
        "core_seconds": {name: [cores for _, cores in each] for name, each in times.items()},
        **ratios(times, place=0, name="ratio"),
        **ratios(times, place=1, name="core_ratio"),
        "num_differing": sum(one != other for one, other in zip(texts["ours"], texts["stock"], strict=True)),
    }


def ratios(times: Mapping[str, Sequence[tuple[float, float]]], *, place: int, name: str) -> dict[str, Any]:
    """The ratio of the medians of one of the two times, and that of each round."""
    stock, ours = ([each[place] for each in times[side]] for side in ("stock", "ours"))
    by_round = [theirs / mine for theirs, mine in zip(stock, ours, strict=True)]
    return {name: median(stock) / median(ours), f"{name}s_by_round": by_round}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="configs/demo_translation.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_intermixed_args()
    quiet_transformers()
    with tempfile.TemporaryDirectory() as folder:
        made = None if options.model else make_model(options, folder=Path(folder))
        model, rows = made or (options.model, options.input)
        found = [compare(model, rows=rows, beams=beams, num_rounds=options.rounds) for beams in options.beams]
    for entry in found:
        spread, cores = (
            ", ".join(f"{ratio:.2f}" for ratio in entry[name]) for name in ("ratios_by_round", "core_ratios_by_round")
        )
        print(
            f"beams {entry['num_beams']}: {entry['ratio']:.2f} times as fast by wall-clock time ({spread}), "
            f"{entry['core_ratio']:.2f} times by core time ({cores}); "
            f"{entry['num_differing']} of {entry['num_rows']} predictions differ"
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
