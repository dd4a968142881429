"""Compares the throughput of `dstrain predict`, by its own search and by CTranslate2, with plain `generate()`.

`python -m tests.benchmarks.predict [RECIPE] [key=value …] [--model FOLDER --input FILE] [--beams 1 4] [--rounds 3]`. All have
the same model and the same rows. The plain way (`stock`) is that of the model card: the tokenizer and the model of transformers,
16 rows at a time in the order of the file, with the settings of the folder. The others are all of `dstrain predict` after the
model is loaded, reading and writing included: `own` searches with the model, `ctranslate2` and `int8` with a converted one.
Without a `--model` the recipe's model is trained for `--steps` steps, as in the benchmark of the evaluation, and predicts the
sources of its evaluation rows. All run in turn in one process; results are ratios of medians, of wall-clock time and of the time
of all cores, which says more on a machine with other work. `--json FILE` writes all figures.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from dstrain.config.load import load_config
from dstrain.config.recipe import Model
from dstrain.data.vocabulary import WHOLE
from dstrain.evaluation.metrics import one_line
from dstrain.models.load import quiet_transformers
from dstrain.models.save import export_model
from dstrain.models.tokenizer import load_tokenizer
from dstrain.run.export import generation_settings, load_exported_model
from dstrain.run.predict import predict_rows
from dstrain.run.predict_model import load_predictor
from dstrain.run.predict_request import parse_arguments, plan_prediction
from dstrain.run_folder.converted import PLAIN, Conversion, write_conversion
from dstrain.run_folder.layout import CONVERTED
from dstrain.serving.conversion import convert, installed_version
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


def write_converted(model: Path, *, folder: Path, quantization: str | None) -> Path:
    """The model folder, converted for CTranslate2."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    tokenizer = load_tokenizer(str(model))
    section = Model(name=str(model))
    loaded = load_exported_model(section, tokenizer=tokenizer, seed=0, vocabulary=WHOLE)
    ends = loaded.generation_config.eos_token_id
    forbidden = [word[0] for word in loaded.generation_config.bad_words_ids or [] if word[0] != ends]
    made = folder / CONVERTED
    convert(loaded, tokenizer=tokenizer, forbidden_ids=forbidden, folder=made, quantization=quantization)
    write_conversion(made, Conversion(installed_version(), quantization or PLAIN, num_proved=0))
    return folder


def ours(model: Path, *, rows: Path, output: Path, beams: int) -> Callable[[], None]:
    """All of `dstrain predict` after the model is loaded."""
    arguments = ["--format", "lines", "--input", rows, "--output", output, "--beams", beams]
    request = plan_prediction(parse_arguments([str(model), *map(str, arguments)], program="predict"))
    predictor = load_predictor(request, device=DEVICE)
    return partial(predict_rows, request, predictor=predictor, ranks=RANKS, total=None)


def compare(models: Mapping[str, Path], *, rows: Path, beams: int, num_rounds: int) -> dict[str, Any]:
    """Runs all sides in turn; returns seconds, ratios and how many predictions differ."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = {name: Path(folder) / name for name in ("stock", *models)}
        stock = AutoModelForSeq2SeqLM.from_pretrained(models["own"]).to(DEVICE).eval()
        tokenizer = AutoTokenizer.from_pretrained(models["own"])
        sides: dict[str, Callable[[], None]] = {
            "stock": partial(predict_stock, stock, tokenizer=tokenizer, rows=rows, output=outputs["stock"], beams=beams)
        }
        for name, model in models.items():
            sides[name] = ours(model, rows=rows, output=outputs[name], beams=beams)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for _ in range(num_rounds):
            for name, run in sides.items():
                times[name].append(timed(run)[0])
            print(
                f"beams {beams}: " + ", ".join(f"{name} {each[-1][0]:.2f} s" for name, each in times.items()),
                flush=True,
            )
        texts = {name: path.read_text(encoding="utf-8").splitlines() for name, path in outputs.items()}
    return {
        "num_beams": beams,
        "num_rows": len(texts["stock"]),
        "seconds": {name: [clock for clock, _ in each] for name, each in times.items()},
        "core_seconds": {name: [cores for _, cores in each] for name, each in times.items()},
        "against_stock": {name: ratios(times["stock"], times[name]) for name in models},
        "against_own": {name: ratios(times["own"], times[name]) for name in models if name != "own"},
        "num_differing": {
            name: sum(one != other for one, other in zip(texts[name], texts["stock"], strict=True)) for name in models
        },
    }


def ratios(theirs: Sequence[tuple[float, float]], ours: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """The ratios of the medians of both times, and those of each round."""
    found: dict[str, Any] = {}
    for place, name in enumerate(("ratio", "core_ratio")):
        pairs = [(one[place], other[place]) for one, other in zip(theirs, ours, strict=True)]
        found[name] = median(one for one, _ in pairs) / median(other for _, other in pairs)
        found[f"{name}s_by_round"] = [one / other for one, other in pairs]
    return found


def describe(entry: Mapping[str, Any]) -> str:
    """The ratios of one number of beams."""
    lines = []
    for base in ("stock", "own"):
        for name, found in entry[f"against_{base}"].items():
            spread, cores = (
                ", ".join(f"{ratio:.2f}" for ratio in found[key]) for key in ("ratios_by_round", "core_ratios_by_round")
            )
            lines.append(
                f"beams {entry['num_beams']}: {name} {found['ratio']:.2f} times as fast as {base} by wall-clock time ({spread}), "
                f"{found['core_ratio']:.2f} times by core time ({cores})"
            )
    differing = ", ".join(f"{name} {number}" for name, number in entry["num_differing"].items())
    return "\n".join([*lines, f"predictions that differ from stock, of {entry['num_rows']}: {differing}"])


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
        models = {"own": model}
        for name, quantization in (("ctranslate2", None), ("int8", "int8")):
            models[name] = write_converted(model, folder=Path(folder) / name, quantization=quantization)
        found = [compare(models, rows=rows, beams=beams, num_rounds=options.rounds) for beams in options.beams]
    for entry in found:
        print(describe(entry))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
