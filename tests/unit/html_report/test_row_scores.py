"""The score of a row is the one that sacreBLEU computes of its sentence, from the numbers that the evaluation kept."""

from typing import Any

import pytest
from sacrebleu.metrics import BLEU, CHRF, TER

from dstrain.config.schema import RunConfig
from dstrain.html_report.row_scores import choose_metric, row_score
from tests.unit.html_report.html_report_cases import BETTER, POOR, REFERENCES, evaluate
from tests.unit.reporting.reporting_cases import parsing_config, translation_config

PAIRS = [
    *zip(POOR, REFERENCES, strict=True),
    *zip(BETTER, REFERENCES, strict=True),
    ("x", "y z"),
    ("a b", "a b c d e f"),
]


@pytest.mark.parametrize(
    ("metric", "reference"), [("bleu", BLEU(effective_order=True)), ("chrf", CHRF()), ("ter", TER())]
)
@pytest.mark.parametrize("pair", PAIRS)
def test_a_row_has_the_score_of_its_sentence(metric: str, reference: Any, pair: tuple[str, str]) -> None:
    hypothesis, text = pair
    (numbers,) = reference._extract_corpus_statistics([hypothesis], [[text]])
    found = row_score(metric, numbers)
    assert found == pytest.approx(reference.sentence_score(hypothesis, [text]).score, abs=5e-5)


def test_a_mean_over_rows_has_the_number_of_the_row() -> None:
    assert row_score("exact_match", [1.0]) == 1.0
    assert row_score("mine", [0.123456]) == 0.1235


@pytest.mark.parametrize(("metric", "numbers"), [("exact_match", [1.0, 2.0]), ("bleu", [1.0]), ("chrf", [1.0] * 10)])
def test_numbers_of_another_metric_are_no_score(metric: str, numbers: list[float]) -> None:
    assert row_score(metric, numbers) is None


@pytest.mark.parametrize(
    ("config", "known", "chosen"),
    [
        (translation_config(), {"bleu", "chrf"}, "chrf"),
        (translation_config(), {"bleu"}, "bleu"),
        (parsing_config(), {"exact_match", "valid_brackets"}, "exact_match"),
        (parsing_config(), {"valid_brackets"}, "valid_brackets"),
        (parsing_config(), {"dev/exact_match"}, None),
        (parsing_config(), set(), None),
    ],
)
def test_single_rows_are_shown_by_the_metric_of_the_recipe_but_by_chrf_rather_than_bleu(
    config: RunConfig, known: set[str], chosen: str | None
) -> None:
    assert choose_metric(config, known=known) == chosen


def test_the_statistics_of_an_evaluation_are_those_that_are_read() -> None:
    _, texts = evaluate(BETTER)
    scores = [row_score("exact_match", row["exact_match"]) for row in texts.statistics]
    assert scores == [0.0, 1.0, 1.0, 0.0]
