"""The average of checkpoints on the card, beside the best evaluation."""

from dataclasses import replace

import pytest

from dstrain.reporting.average import build_average_table, explain_average, is_average_better
from dstrain.reporting.card import build_card
from dstrain.run_folder.average import Average
from dstrain.run_folder.scores import ScoreFile
from tests.unit.reporting.card_cases import tables
from tests.unit.reporting.reporting_cases import translation_record


@pytest.mark.parametrize(
    ("change", "words"), [(1.0, "it is better than"), (0.0, "it is not better"), (-1.0, "not better")]
)
def test_the_card_says_whether_the_average_is_better_than_the_best(change: float, words: str) -> None:
    record = translation_record()
    assert record.best is not None
    bleu = record.best.scores["bleu"] + change
    scores = {**record.best.scores, "bleu": bleu}
    record = replace(record, average=Average((100, 200, 300), ScoreFile(scores=scores, step=300)))
    assert is_average_better(record) == (change > 0)
    card = build_card(record)
    found = next(each for each in tables(card) if each[0][0] == "Weights")
    assert found[1][0] == "average of 3 checkpoints"
    assert f"{bleu:.4f}" in found[1]
    assert found[2][0].endswith(", the best")
    assert "The mean of the weights at the steps 100, 200, 300 is in `average/`." in card
    assert words in card


def test_the_card_of_the_average_opens_with_its_scores() -> None:
    record = translation_record()
    assert record.best is not None
    scores = {**record.best.scores, "bleu": 27.5}
    averaged = Average((50000, 95000), ScoreFile(scores=scores, step=95000, num_rows=1000))
    card = build_card(replace(record, average=averaged, subject="average"))
    assert "- Bleu: 27.5000\n" in card.split("These are the scores")[0]
    assert "These are the scores of the mean of several checkpoints' weights. All 1,000 rows" in card
    assert "The best evaluation by `bleu`, at step 95,000, has" in card


def test_without_an_average_the_card_has_no_such_section() -> None:
    record = translation_record()
    assert (build_average_table(record), explain_average(record), is_average_better(record)) == (None, [], None)
    assert "Average of checkpoints" not in build_card(record)
