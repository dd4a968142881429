"""How large a report is: of the evaluation rows of MTOP in twenty evaluations, each better than the one before."""

import gzip
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from dstrain.config.schema import RunConfig
from dstrain.html_report import report
from dstrain.html_report.document import encode
from dstrain.html_report.files import read_run
from dstrain.html_report.report import build_document, write_report
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.rows import EventRow, Row
from dstrain.run_folder.scores import ScoredTexts, Scores, write_scores
from tests.unit.html_report.html_report_cases import as_row, decode, make_run, write_rows
from tests.unit.reporting.reporting_cases import parsing_config, train_row

NUM_EVALUATIONS = 20


def read_pairs(path: Path) -> list[tuple[str, str]]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(source, target) for source, target in (line.split("\t") for line in lines)]


def spoil(text: str, *, share: float, words: Sequence[str], source: random.Random) -> str:
    """The text with a share of its words replaced by others of the data."""
    return " ".join(source.choice(words) if source.random() < share else word for word in text.split())


def make_mtop_run(path: Path, *, pairs: Sequence[tuple[str, str]], config: RunConfig) -> RunFolder:
    """A run whose wrong hypotheses are other ones in every evaluation, and whose right ones stay right."""
    folder, source = make_run(path, hypotheses=[], last_event=None, config=config), random.Random(1)
    references = [target for _, target in pairs]
    words = sorted({word for text in references for word in text.split()})
    hypotheses = [""] * len(pairs)
    rows: list[Row] = []
    for number in range(NUM_EVALUATIONS):
        share = 0.4 * 0.85**number
        hypotheses = [
            now if now == text else spoil(text, share=share, words=words, source=source)
            for now, text in zip(hypotheses, references, strict=True)
        ]
        matches = [float(now == text) for now, text in zip(hypotheses, references, strict=True)]
        scores = Scores(scores={"exact_match": sum(matches) / len(matches)}, num_rows=len(pairs))
        texts = ScoredTexts(
            hypotheses,
            [references],
            [text for text, _ in pairs],
            [f"eval.tsv:{row + 1}" for row in range(len(pairs))],
            [{"exact_match": [match]} for match in matches],
        )
        step = 100 * (number + 1)
        write_scores(scores, texts, folder=folder, step=step)
        rows += [
            *(train_row(each, lease=1) for each in range(step - 90, step + 1, 10)),
            as_row(scores, step=step, lease=1),
        ]
    write_rows(folder, [*rows, EventRow("finish", 100 * NUM_EVALUATIONS, lease=1)])
    return folder


def test_rows_are_drawn_where_the_page_would_be_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = random.Random(2)
    pairs = [(source.randbytes(20).hex(), " ".join(source.randbytes(4).hex() for _ in range(9))) for _ in range(300)]
    config = parsing_config(task={"kind": "parsing", "form": "plain"})
    folder = make_mtop_run(tmp_path / "run", pairs=pairs, config=config)
    monkeypatch.setattr(report, "MAX_PACKED_BYTES", 60_000)
    document = build_document([read_run(folder.path)], created="now")
    (texts,) = document.runs[0].sets
    assert texts.is_sampled
    assert 50 < len(texts.hypotheses) < texts.num_rows == 300
    assert len(gzip.compress(encode(document))) <= 60_000
    assert any("of the 300 rows of `evaluation`" in note for note in document.notes)


@pytest.mark.real_data
def test_mtop_in_twenty_evaluations_takes_less_than_three_megabytes_and_is_whole(
    real_data: Path, tmp_path: Path
) -> None:
    pairs = read_pairs(real_data / "mtop" / "eval.tsv")
    config = parsing_config(task={"kind": "parsing", "form": "plain"})
    folder = make_mtop_run(tmp_path / "mtop", pairs=pairs, config=config)
    document = build_document([read_run(folder.path)], created="2026-11-29T20:00:00+00:00")
    assert write_report(document, path=folder.report) < 3e6
    (texts,) = decode(folder.report)["runs"][0]["sets"]
    assert (len(texts["hypotheses"]), texts["is_sampled"]) == (len(pairs), False)
    assert len(texts["evaluations"]) == NUM_EVALUATIONS
    last = (folder.hypotheses(100 * NUM_EVALUATIONS) / "hypotheses.txt").read_text().splitlines()
    assert [row[-1] for row in texts["hypotheses"]] == last
