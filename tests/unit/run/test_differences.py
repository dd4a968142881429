"""Runs beside the first one: differences where their references are the same, and a reason where they are not."""

from pathlib import Path
from typing import Any

import pytest

from dstrain.evaluation.significance import find_difference
from dstrain.run.differences import Evaluated, compare_with_first
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.row_statistics import STATISTICS
from dstrain.run_folder.rows import EvalRow
from dstrain.run_folder.scores import ScoredTexts, Scores, write_scores
from tests.unit.evaluation.significance_cases import garble, sentences, statistics

ANSWERS = sentences(60)
STEP = 10


def evaluate(
    folder: Path,
    *,
    share: float,
    references: list[str] = ANSWERS,
    metrics: tuple[str, ...] = ("bleu", "chrf"),
    **row: Any,
) -> Evaluated:
    """A run with one evaluation."""
    hypotheses = garble(references, share=share, seed=len(folder.name))
    found = statistics(hypotheses, [[text] for text in references])
    rows = [{name: found[name][place] for name in metrics} for place in range(len(references))]
    scores = Scores(scores=dict.fromkeys(metrics, 10.0 + share), signatures={"bleu": "b", "chrf": "c"})
    texts = ScoredTexts(hypotheses, [references], references, references, rows)
    write_scores(scores, texts, folder=RunFolder(folder), step=STEP)
    best = EvalRow(**scores.as_fields() | row, step=STEP, epoch=1.0)
    return Evaluated(folder.name, RunFolder(folder), best)


def test_scores_of_the_same_rows_have_a_difference_with_its_interval_and_p(tmp_path: Path) -> None:
    runs = [evaluate(tmp_path / name, share=share) for name, share in (("a", 0.3), ("bb", 0.1), ("ccc", 0.35))]
    one, other = compare_with_first(runs)
    assert (one.first, one.second, other.second) == ("a", "bb", "ccc")
    assert (one.num_rows, one.refusal, one.left_out) == (60, None, None)
    (bleu, chrf) = one.differences
    rows = [
        statistics((folder / "hypotheses.txt").read_text().splitlines(), [[text] for text in ANSWERS])["bleu"]
        for folder in (run.folder.hypotheses(STEP) for run in runs[:2])
    ]
    expected = find_difference("bleu", first=rows[0], second=rows[1])
    assert (bleu.metric, bleu.first, bleu.second) == ("bleu", 10.3, 10.1)
    assert (bleu.difference, bleu.low, bleu.high) == (expected.value, expected.low, expected.high)
    assert (bleu.p, bleu.test) == (expected.p, expected.test)
    assert chrf.metric == "chrf"


def test_other_references_are_refused_with_the_number_of_rows_and_the_first(tmp_path: Path) -> None:
    others = [*ANSWERS[:20], "another one", *ANSWERS[21:40], "one more", *ANSWERS[41:]]
    runs = [
        evaluate(tmp_path / "a", share=0.3),
        evaluate(tmp_path / "bb", share=0.2, references=others),
        evaluate(tmp_path / "ccc", share=0.2, references=ANSWERS[:50]),
    ]
    changed, shorter = (each.refusal or "" for each in compare_with_first(runs))
    assert changed.startswith("2 of 60 rows have other references, the first in line 21 of references.txt")
    assert shorter.startswith("10 of 60 rows have other references, the first in line 51 of references.txt")


def test_scores_that_were_computed_in_another_way_are_left_out_by_name(tmp_path: Path) -> None:
    runs = [
        evaluate(tmp_path / "a", share=0.3),
        evaluate(tmp_path / "bb", share=0.2, signatures={"bleu": "another", "chrf": "c"}),
    ]
    (found,) = compare_with_first(runs)
    assert [each.metric for each in found.differences] == ["chrf"]
    assert found.left_out == "not compared, because they were computed in different ways: bleu"


def test_what_is_missing_or_damaged_is_said_and_two_runs_of_an_earlier_version_are_left_out(tmp_path: Path) -> None:
    runs = [evaluate(tmp_path / name, share=0.2) for name in ("a", "bb")]
    damaged = runs[1].folder.hypotheses(STEP) / STATISTICS
    damaged.write_text("nonsense\n")
    assert f"{damaged}:1" in (compare_with_first(runs)[0].refusal or "")
    damaged.unlink()
    assert compare_with_first(runs)[0].refusal == "bb has no row statistics of its best evaluation: score it again"
    early = Evaluated("early", runs[1].folder, None)
    assert compare_with_first([runs[0], early])[0].refusal == "early has no evaluation yet"
    assert compare_with_first([early, runs[0]])[0].refusal == "early has no evaluation yet"
    (runs[0].folder.hypotheses(STEP) / STATISTICS).unlink()
    assert compare_with_first(runs) == []


def test_references_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    runs = [evaluate(tmp_path / name, share=0.2) for name in ("a", "bb")]
    path = runs[1].folder.hypotheses(STEP) / "references.txt"
    path.unlink()
    assert str(path) in (compare_with_first(runs)[0].refusal or "")


@pytest.mark.parametrize("metrics", [("ter",), ("bleu", "ter")])
def test_only_scores_of_both_are_compared(metrics: tuple[str, ...], tmp_path: Path) -> None:
    runs = [
        evaluate(tmp_path / "a", share=0.3, metrics=("chrf", "ter")),
        evaluate(tmp_path / "bb", share=0.2, metrics=metrics),
    ]
    assert [each.metric for each in compare_with_first(runs)[0].differences] == ["ter"]


def test_the_same_hypotheses_have_no_p(tmp_path: Path) -> None:
    runs = [evaluate(tmp_path / name / "xx", share=0.3) for name in ("one", "two")]
    (found,) = compare_with_first(runs)
    assert [(each.difference, each.p, each.test) for each in found.differences] == [
        (0.0, None, "the same hypotheses")
    ] * 2
