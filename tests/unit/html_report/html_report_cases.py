"""Run folders with real scores and texts, as runs leave them: finished, killed and resumed, still training."""

import base64
import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dstrain.config.load import dump_config
from dstrain.config.schema import RunConfig
from dstrain.evaluation.significance import find_intervals
from dstrain.evaluation.text_metrics import Corpus, text_scores
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.outcome import RunOutcome, write_end, write_outcome
from dstrain.run_folder.record import write_run_info
from dstrain.run_folder.rows import EvalRow, EventRow, Row, append_row, as_json
from dstrain.run_folder.scores import ScoredTexts, Scores, write_scores
from tests.unit.reporting.reporting_cases import train_row, translation_config

REFERENCES = ("the cat sat on the mat .", "a dog barks at the moon .", "it rains in spring .", "we drink green tea .")
SOURCES = ("고양이가 매트에 앉았다.", "개가 달을 보고 짖는다.", "봄에 비가 온다.", "우리는 녹차를 마신다.")
POOR = ("the cat sat .", "a a a a", "it rains in spring .", "")
BETTER = ("the cat sat on a mat .", "a dog barks at the moon .", "it rains in spring .", "we drink tea .")
GROUPS = ("animals", "animals", "weather", "food")


def evaluate(
    hypotheses: Sequence[str],
    *,
    sources: Sequence[str] = SOURCES,
    references: Sequence[str] = REFERENCES,
    groups: Sequence[str] = GROUPS,
    place: str = "eval.tsv",
) -> tuple[Scores, ScoredTexts]:
    """Texts scored as an evaluation scores them, with intervals, row statistics and groups."""
    found = text_scores(Corpus(hypotheses, [[text] for text in references]), wanted=["bleu", "chrf", "exact_match"])
    statistics = {each.name: each.rows for each in found if each.rows is not None}
    lines = [{name: list(map(float, rows[row])) for name, rows in statistics.items()} for row in range(len(references))]
    of_group = {group: {"bleu": 10.0, "num_rows": groups.count(group)} for group in dict.fromkeys(groups)}
    scores = Scores(
        scores={each.name: each.value for each in found} | {"loss": 2.0, "gen_len": 6.5},
        groups={name: dict(of_group[name]) for name in of_group},
        signatures={each.name: each.signature for each in found if each.signature},
        num_rows=len(references),
        intervals=find_intervals(statistics),
    )
    index = [f"{place}:{row + 1}" for row in range(len(references))]
    return scores, ScoredTexts(hypotheses, [references], sources, index, lines, [[group] for group in groups])


def as_row(scores: Scores, *, step: int, lease: int = 1) -> EvalRow:
    return EvalRow(**scores.as_fields(), step=step, epoch=step / 10, lease=lease)


def make_run(
    path: Path,
    *,
    hypotheses: Sequence[Sequence[str]] = (POOR, BETTER),
    last_event: str | None = "finish",
    config: RunConfig | None = None,
) -> RunFolder:
    """A run with a training row at every tenth step and an evaluation at every hundredth, in one attempt."""
    folder = RunFolder(path)
    write_config(folder, config)
    rows: list[Row] = [EventRow("start", 0, "2026-11-29T10:00:00+00:00", lease=1)]
    for number, texts in enumerate(hypotheses, start=1):
        step = 100 * number
        rows += [train_row(each, lease=1) for each in range(step - 90, step + 1, 10)]
        rows.append(add_evaluation(folder, texts, step=step))
    if last_event is not None:
        step = 100 * len(hypotheses)
        rows.append(EventRow("finish" if last_event == "finish" else "stop", step, "2026-11-29T11:00:00Z", lease=1))
    write_rows(folder, rows)
    return folder


def make_killed_run(path: Path) -> RunFolder:
    """Killed at step 140, resumed from step 100: steps 110 to 140 are there twice, and the evaluation of step 200 once."""
    folder = RunFolder(path)
    write_config(folder, None)
    rows: list[Row] = [EventRow("start", 0, "2026-11-29T10:00:00+00:00", lease=1)]
    rows += [train_row(step, loss=5.0, lease=1) for step in range(10, 101, 10)]
    rows.append(add_evaluation(folder, POOR, step=100))
    rows += [train_row(step, loss=9.0, lease=1) for step in range(110, 141, 10)]
    rows.append(EventRow("resume", 100, "2026-11-29T11:00:00+00:00", "preempted job 17", lease=2))
    rows += [replace(train_row(step, loss=4.0, lease=2), skipped_steps=6) for step in range(110, 201, 10)]
    rows.append(replace(add_evaluation(folder, BETTER, step=200), lease=2))
    rows.append(EventRow("finish", 200, "2026-11-29T12:00:00+00:00", lease=2))
    write_rows(folder, rows)
    for number, base in ((1, 0), (2, 100)):
        write_claim(folder, number=number, base_step=base)
    killed = RunOutcome("killed", None, "SIGKILL\nits node was lost", step=140, attempt=1, time="2026-11-29T10:50:00Z")
    write_end(path, killed)
    write_end(path, RunOutcome("finished", 0, step=200, attempt=2, time="2026-11-29T12:00:00Z"))
    return folder


def write_config(folder: RunFolder, config: RunConfig | None) -> None:
    folder.path.mkdir(exist_ok=True)
    folder.config.write_text(dump_config(config or translation_config(name=folder.path.name)), encoding="utf-8")
    info: dict[str, Any] = {
        "world_size": 2,
        "device": "cpu",
        "total_steps": 200,
        "versions": {"dstrain": "0.1.0"},
        "data": {"train": {"rows": 1000, "fingerprint": "of training"}, "eval": {"rows": 4}},
        "warnings": ["the data in /home/anna/data are small"],
    }
    write_run_info(folder.path, info)


def add_evaluation(folder: RunFolder, hypotheses: Sequence[str], *, step: int, **texts: Any) -> EvalRow:
    """Write the files of an evaluation; returns its row."""
    scores, scored = evaluate(hypotheses, **texts)
    write_scores(scores, scored, folder=folder, step=step)
    return as_row(scores, step=step)


def write_rows(folder: RunFolder, rows: Sequence[Row]) -> None:
    for row in rows:
        append_row(folder.metrics, as_json(row) | {"lease": row.lease})


def make_failed_starts(path: Path) -> RunFolder:
    """A run that failed twice before it began to train: over its data, then over its model."""
    folder = RunFolder(path)
    path.mkdir()
    for number, message in ((1, "no data"), (2, "no weights")):
        write_claim(folder, number=number, base_step=None)
        write_outcome(path, RunOutcome("failed", 1, message, attempt=number, time=f"2026-11-29T1{number}:00:01Z"))
    return folder


def write_claim(folder: RunFolder, *, number: int, base_step: int | None) -> None:
    folder.claims.mkdir(exist_ok=True)
    since = f"2026-11-29T1{number - 1}:00:00+00:00"
    holder = f'{{"host":"node-{number}","pid":1,"process_start":1,"pid_namespace":"x","since":"{since}"}}'
    text = f'{{"number":{number},"holder":{holder},"base_step":{json.dumps(base_step)},"released":true}}'
    (folder.claims / f"{number:08d}.json").write_text(text)


def decode(path: Path) -> dict[str, Any]:
    """The document in a page, as the page itself reads it."""
    (data,) = re.findall(r'<script[^>]*id="dstrain-data"[^>]*>([^<]*)</script>', path.read_text())
    found: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(data)))
    return found
