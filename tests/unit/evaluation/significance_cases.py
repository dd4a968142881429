"""Two systems on the same rows, and what the sacrebleu program says of them."""

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dstrain.evaluation.text_metrics import Corpus, text_scores

Rows = Sequence[Sequence[float]]
METRICS = ("bleu", "chrf", "ter")


def garble(texts: Sequence[str], *, share: float, seed: int) -> list[str]:
    """Texts as a worse system writes them: words are left out, doubled or exchanged."""
    chosen = random.Random(seed)
    found = []
    for text in texts:
        words = text.split()
        for place in range(len(words)):
            if chosen.random() < share:
                words[place] = chosen.choice(["", words[place] * 2, chosen.choice(words)])
        found.append(" ".join(word for word in words if word))
    return found


def sentences(number: int, *, seed: int = 0) -> list[str]:
    """Sentences of 1 to 20 words, with punctuation."""
    chosen = random.Random(seed)
    words = [f"{chosen.choice('bdklmnprst')}{chosen.choice('aeiou')}{chosen.choice('lmnrst')}" for _ in range(300)]
    return [" ".join(chosen.choices(words, k=chosen.randint(1, 20))) + chosen.choice(".?!") for _ in range(number)]


def statistics(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Rows]:
    """The row statistics of BLEU, chrF and TER; `references` by row."""
    found = text_scores(Corpus(hypotheses, references), wanted=METRICS)
    return {each.name: each.rows for each in found if each.rows is not None}


def run_program(
    folder: Path,
    *options: str,
    systems: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str] = METRICS,
) -> Any:
    """The JSON that sacreBLEU's program prints for these systems; `references` by row."""
    paths = []
    for name, lines in [
        *((f"system{number}", lines) for number, lines in enumerate(systems)),
        *((f"references{number}", lines) for number, lines in enumerate(zip(*references, strict=True))),
    ]:
        paths.append(folder / f"{name}.txt")
        paths[-1].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    arguments = [*map(str, paths[len(systems) :]), "-i", *map(str, paths[: len(systems)]), "-m", *metrics]
    command = [sys.executable, "-m", "sacrebleu", *arguments, "-w", "17", "-f", "json", *options]
    done = subprocess.run(command, capture_output=True, check=True)
    return json.loads(done.stdout)
