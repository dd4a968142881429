"""A new user's way: data files, `dstrain init`, and a first evaluation, with no edit between them."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from dstrain.run_folder.record import load_record

Demo = Literal["translation", "parsing", "text"]
Pairs = list[tuple[str, str]]


def pairs_of(demo: Demo) -> Pairs:
    from dstrain.tasks.demo.rows import demo_rows

    return [(row.source, row.target) for row in list(demo_rows(demo, split="train"))[::30]]


def write_tsv(folder: Path, pairs: Pairs) -> list[str]:
    (folder / "pairs.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
    return ["pairs.tsv"]


def write_csv(folder: Path, pairs: Pairs) -> list[str]:
    with (folder / "slips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "as typed", "as meant"])
        writer.writerows([number, *pair] for number, pair in enumerate(pairs))
    return ["slips.csv"]


def write_jsonl(folder: Path, pairs: Pairs) -> list[str]:
    for name, part in (("train", pairs[20:]), ("dev", pairs[:20])):
        lines = [json.dumps({"utterance": source, "parse": target}) for source, target in part]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return ["train.jsonl", "dev.jsonl"]


def start(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dstrain", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("demo", "write", "metric"),
    [("translation", write_tsv, "bleu"), ("text", write_csv, "rouge_l"), ("parsing", write_jsonl, "exact_match_parse")],
    ids=["translation.tsv", "text.csv", "parsing.jsonl"],
)
def test_data_files_come_to_a_first_evaluation_with_no_edit(
    demo: Demo, write: Callable[[Path, Pairs], list[str]], metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    start(tmp_path, "init", *write(tmp_path, pairs_of(demo)), "--name", "first", "--device", "cpu")
    start(tmp_path, "check", "first.yaml")
    start(tmp_path, "train", "--debug", "--config", "first.yaml")
    record = load_record(tmp_path / "runs" / "first-debug")
    assert record.status == "finished"
    assert record.config.task.kind == demo
    assert record.final is not None
    assert metric in record.final.scores
    assert (tmp_path / "runs" / "first-debug" / "README.md").is_file()
