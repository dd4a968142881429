"""What the audit of the data costs, finds and needs: beside tokenising with a real tokenizer, and over millions of rows.

`python -m tests.benchmarks.audit [--rows N] [--folder DIR] [--json FILE] [--data DIR]`. Rows are made up, of two scripts, with
words as frequent as in real text. The cost is the ratio of CPU seconds of the same token set, made with the audit and without
it, by turns. The scale is measured in fresh processes with a tokenizer that only splits words, so that the audit's own
memory shows.
`--data` is a folder with real data, of which the cost is measured too.
"""

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np

from dstrain.config.data import Rules, Source
from dstrain.config.recipe import Scratch, Task
from dstrain.data import merge, shards
from dstrain.data.bad_rows import BadRowLog
from dstrain.data.encoding import Encoder, ReadingRules, Split
from dstrain.data.identity import IDENTITY
from dstrain.data.near import NearFinder
from dstrain.data.overlap import find_shared
from dstrain.data.sources import read_rows
from dstrain.data.tokens import TokenSet, load_token_set, prepare_token_set
from dstrain.models.scratch import train_tokenizer
from dstrain.models.tokenizer import load_tokenizer
from dstrain.reporting.audit import find_alarms
from dstrain.run.audit import build_audit
from dstrain.run_folder.audit import CHECKS, Overlap, SetAudit
from tests.benchmarks.scale import read_peak
from tests.unit.data.audit_cases import CYRILLIC, LATIN, NUMBERS, PLANTS, Pair, draw_pairs
from tests.unit.data.word_encoder import WordEncoder

NUM_COST_ROWS = 40_000
NUM_EVAL_ROWS = 10_000
NUM_PLANTED_ROWS = 100_000
PLANTED_OF_EACH = 100
TURNS = 8
TASK = Task(kind="translation", max_source_tokens=128, max_target_tokens=128)
EMPTY = SetAudit(0, ())


def write_pairs(path: Path, pairs: Iterator[Pair] | Sequence[Pair]) -> Source:
    """A TSV file of the pairs, as a source."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{source}\t{target}\n" for source, target in pairs)
    return Source(path=str(path))


def make(source: Source, *, encoder: Encoder, folder: Path, split: Split = "train") -> TokenSet:
    """The token set of a source, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    reading = ReadingRules(TASK, Rules(unknown_token="keep"), encoder, split=split)
    return load_token_set(prepare_token_set([source], reading=reading, cache_dir=folder))


@contextmanager
def no_audit() -> Iterator[None]:
    """Make token sets without looking at their rows."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(shards, "identify", lambda examples: np.zeros(len(examples), IDENTITY)))
        stack.enter_context(patch.object(shards.RowAudit, "add", lambda self, rows, identities: None))
        stack.enter_context(patch.object(merge.SetAuditor, "add", lambda self, shard: None))
        stack.enter_context(patch.object(merge.SetAuditor, "names", {}))
        stack.enter_context(patch.object(merge.SetAuditor, "finish", lambda self, beat: EMPTY))
        yield


def measure_cost(source: Source, *, folder: Path, architecture: str) -> dict[str, Any]:
    """CPU seconds with the audit and without it, by turns, with a tokenizer trained on the rows themselves."""
    tokenizer_folder = folder / f"tokenizer-{architecture}"
    rows = list(read_rows([source], task=TASK, rules=Rules(), on_bad=BadRowLog()))
    if not tokenizer_folder.exists():
        tokenizer_folder.mkdir()
        scratch = Scratch.model_validate({"architecture": architecture, "vocabulary_size": 8000})
        texts = [text for row in rows[:20_000] for text in (row.source, row.target)]
        train_tokenizer(scratch, texts=texts, languages=[], task_tokens=[], folder=tokenizer_folder)
    encoder = load_tokenizer(str(tokenizer_folder))
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(TURNS):
        for audited in (turn % 2 == 0, turn % 2 == 1):
            with ExitStack() as stack:
                if not audited:
                    stack.enter_context(no_audit())
                started = time.process_time()
                make(source, encoder=encoder, folder=folder / "cost")
                seconds[audited].append(time.process_time() - started)
    shutil.rmtree(tokenizer_folder)
    with_it, without = seconds[True], seconds[False]
    return {
        "ratio_of_medians": median(with_it) / median(without),
        "ratio_of_fastest": min(with_it) / min(without),
        "ratios": sorted(one / other for one, other in zip(with_it, without, strict=True)),
        "microseconds_added_per_row": (min(with_it) - min(without)) / len(rows) * 1e6,
        "rows_per_cpu_second": len(rows) / median(with_it),
        "rows": len(rows),
    }


def word_encoder() -> WordEncoder:
    """A tokenizer that only splits words."""
    return WordEncoder(" ".join([*LATIN, *CYRILLIC, *NUMBERS]), languages=())


def measure_scale(folder: Path, num_rows: int) -> dict[str, Any]:
    """Rates and peak memory over many rows; in a process of its own."""
    draw = random.Random(1)
    evaluation_pairs = draw_pairs(NUM_EVAL_ROWS, seed=2)
    parts = (draw_pairs(10_000, seed=seed) for seed in range(100, 100 + num_rows // 10_000))
    pairs = (draw.choice(evaluation_pairs) if draw.random() < 1e-4 else pair for part in parts for pair in part)
    source = write_pairs(folder / "train.tsv", pairs)
    evaluation_source = write_pairs(folder / "eval.tsv", evaluation_pairs)
    encoder = word_encoder()
    evaluation = make(evaluation_source, encoder=encoder, folder=folder / "eval", split="eval")
    before = read_peak()
    started = time.perf_counter()
    train = make(source, encoder=encoder, folder=folder / "train")
    made = time.perf_counter()
    rows = np.concatenate(list(evaluation.identities()))
    ways, _ = find_shared(rows, train.identities(), places=(train.places, evaluation.places))
    shared = time.perf_counter()
    of_set = read_peak()
    finder = NearFinder([(each.raw_source, each.raw_target, each.where) for each in evaluation.examples])
    part = read_rows([source.model_copy(update={"max_rows": 100_000})], task=TASK, rules=Rules(), on_bad=BadRowLog())
    begun = time.perf_counter()
    finder.add(part)
    near = time.perf_counter() - begun
    return {
        "rows": num_rows,
        "rows_per_second_tokenised_and_audited": num_rows / (made - started),
        "rows_per_second_overlap": num_rows / (shared - made),
        "rows_per_second_near": min(num_rows, 100_000) / near,
        "peak_before": before,
        "peak_of_the_set": of_set,
        "peak_with_near": read_peak(),
        "equal_pairs": ways["equal pair"].eval_rows,
        "repeated": train.report["audit"]["equal"]["number"],
        "identities_bytes": (train.folder / "identities.bin").stat().st_size,
    }


def measure_planted(folder: Path) -> dict[str, Any]:
    """Planted faults of each kind among many rows, and those found; alarms of the clean rows."""
    clean = draw_pairs(NUM_PLANTED_ROWS, seed=5)
    evaluation_pairs = draw_pairs(1000, seed=6)
    dirty = list(clean)
    places = iter(random.Random(7).sample(range(1, NUM_PLANTED_ROWS), PLANTED_OF_EACH * (len(PLANTS) + 3)))
    for plant in PLANTS.values():
        for _ in range(PLANTED_OF_EACH):
            place = next(places)
            dirty[place] = plant(random.Random(place), clean, place)
    for number in range(PLANTED_OF_EACH):
        dirty[next(places)] = clean[0]
        dirty[next(places)] = evaluation_pairs[number]
        dirty[next(places)] = ("", clean[1][1])
    encoder, found = word_encoder(), {}
    evaluation = make(
        write_pairs(folder / "eval.tsv", evaluation_pairs), encoder=encoder, folder=folder / "e", split="eval"
    )
    for name, pairs in (("clean", clean), ("dirty", dirty)):
        train = make(write_pairs(folder / f"{name}.tsv", pairs), encoder=encoder, folder=folder / "t")
        rows = np.concatenate(list(evaluation.identities()))
        ways, held = find_shared(rows, train.identities(), places=(train.places, evaluation.places))
        overlap = Overlap(evaluation.num_rows, train.fingerprint, evaluation.fingerprint, ways, tuple(held))
        audit = build_audit(train=train, evaluation=evaluation, overlap=overlap)
        counts = {check: audit.train.sources[0].checks[check].number for check in CHECKS}
        counts |= {"repeated": audit.train.equal.number, "overlap": ways["normalised pair"].eval_rows}
        counts |= {"empty": train.report["skipped"].get("empty", 0)}
        found[name] = {"found": counts, "alarms": find_alarms(audit, kind="translation")}
    return {"planted_of_each": PLANTED_OF_EACH, "rows": NUM_PLANTED_ROWS, **found}


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        sources = {"made up": write_pairs(folder / "cost.tsv", draw_pairs(NUM_COST_ROWS))}
        if options.data is not None:
            sources["MTOP"] = Source(path=str(options.data / "mtop/train.tsv"))
            sources["Korean-English"] = Source(path=str(options.data / "ko_en/python_docs.train.tsv"))
        figures["cost"] = {
            f"{title}, {architecture}": measure_cost(source, folder=folder, architecture=architecture)
            for title, source in sources.items()
            for architecture in ("m2m100", "t5")
        }
        figures["planted"] = measure_planted(folder)
        for num_rows in options.rows:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                figures[f"scale {num_rows}"] = pool.submit(measure_scale, folder, num_rows).result()
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
