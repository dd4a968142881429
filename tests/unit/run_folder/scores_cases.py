"""Scores and texts to write, and the sacrebleu command run on the written files."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from dstrain.evaluation.bleu_tokenizer import choose_tokenizer
from dstrain.evaluation.metrics import one_line
from dstrain.evaluation.text_metrics import Corpus, text_scores
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.scores import ScoredTexts, Scores, write_scores


def score(hypotheses: list[str], references: list[str], *, target_language: str = "en") -> tuple[Scores, ScoredTexts]:
    """Given texts, scored as an evaluation scores them."""
    lines, answers = [one_line(text) for text in hypotheses], [one_line(text) for text in references]
    tokenizer = choose_tokenizer({target_language: answers}).name
    found = text_scores(Corpus(lines, [[text] for text in answers], tokenizer), wanted=["bleu", "chrf"])
    scores = Scores(
        scores={each.name: each.value for each in found},
        signatures={each.name: str(each.signature) for each in found},
        num_rows=len(lines),
    )
    return scores, ScoredTexts(lines, [answers], answers, [f"eval.tsv:{row + 1}" for row in range(len(lines))])


def write(folder: Path, hypotheses: list[str], references: list[str], *, step: int) -> Path:
    """Score texts and write them; returns the folder of the texts."""
    return folder / write_scores(*score(hypotheses, references), folder=RunFolder(folder), step=step)


def run_sacrebleu(folder: Path, command: str | None) -> list[dict[str, Any]]:
    """What the command prints in a folder of texts."""
    assert command is not None
    program, *arguments = shlex.split(command)
    assert program == "sacrebleu"
    done = subprocess.run([sys.executable, "-m", "sacrebleu", *arguments], cwd=folder, capture_output=True, check=True)
    scores: list[dict[str, Any]] = json.loads(done.stdout)
    return scores
