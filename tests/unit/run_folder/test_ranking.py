"""Which evaluation is better where the best metric is the same, and which metrics no longer change."""

import math

import pytest

from dstrain.run_folder.ranking import describe_constants, rank
from tests.unit.reporting.reporting_cases import parsing_config, translation_config

TRANSLATION = translation_config().ranking


def test_the_ranking_begins_with_the_best_metric_and_ends_with_the_loss() -> None:
    assert TRANSLATION == ("bleu", "chrf", "loss")
    assert translation_config(evaluation={"best_metric": "chrf"}).ranking == ("chrf", "bleu", "loss")
    assert translation_config(evaluation={"best_metric": "loss"}).ranking == ("loss", "bleu", "chrf")
    assert parsing_config(evaluation={"best_metric": "exact_match"}).ranking[0] == "exact_match"
    assert parsing_config(evaluation={"best_metric": "exact_match"}).ranking[-2:] == ("valid_brackets", "loss")


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"bleu": 1.0, "chrf": 0.0, "loss": 9.0}, {"bleu": 0.0, "chrf": 50.0, "loss": 1.0}),
        ({"bleu": 0.0, "chrf": 50.0, "loss": 9.0}, {"bleu": 0.0, "chrf": 49.0, "loss": 1.0}),
        ({"bleu": 0.0, "chrf": 50.0, "loss": 1.0}, {"bleu": 0.0, "chrf": 50.0, "loss": 1.1}),
        ({"bleu": 0.0, "chrf": 0.0, "loss": 1.0}, {"bleu": math.nan, "chrf": 1.0, "loss": 0.5}),
        ({"bleu": 0.0, "chrf": 0.0}, {"bleu": 0.0}),
        ({"bleu": 0.0, "chrf": 0.0, "loss": 5.0}, {"bleu": 0.0, "chrf": 0.0, "loss": math.nan}),
    ],
)
def test_a_tie_is_broken_by_the_next_metric_and_at_last_by_the_lower_loss(
    better: dict[str, float], worse: dict[str, float]
) -> None:
    assert rank(better, metrics=TRANSLATION) > rank(worse, metrics=TRANSLATION)


def test_the_lower_error_rate_is_the_better_one() -> None:
    assert rank({"ter": 40.0}, metrics=["ter"]) > rank({"ter": 41.0}, metrics=["ter"])
    assert rank({"news/ter": 40.0}, metrics=["news/ter"]) > rank({}, metrics=["news/ter"])


def test_equal_scores_have_equal_ranks_with_and_without_a_loss() -> None:
    for scores in ({"bleu": 0.0, "chrf": 1.0, "loss": 2.0}, {"bleu": 0.0, "chrf": 1.0}):
        assert rank(scores, metrics=TRANSLATION) == rank(dict(scores), metrics=TRANSLATION)


def test_a_metric_that_is_the_same_in_three_evaluations_in_a_row_is_described() -> None:
    config = translation_config()
    scores = [{"bleu": 0.0, "chrf": float(step), "loss": 3.0 - step} for step in range(3)]
    assert describe_constants(scores[:2], config=config) == {}
    assert describe_constants(scores, config=config) == {
        "bleu": "bleu was 0.0000 in 3 evaluations in a row: it does not tell the models apart, so that chrf, loss choose "
        "the best one, in this order; read the hypotheses"
    }
    assert list(describe_constants([*scores, {"bleu": 2.0, "chrf": 9.0, "loss": 0.0}], config=config)) == ["bleu"]
    interrupted = [*scores[:2], {"bleu": 1.0, "chrf": 2.0, "loss": 0.0}, *scores[:2]]
    assert describe_constants(interrupted, config=config) == {}
    assert list(describe_constants([{"bleu": 1.0 + step, "loss": 2.0} for step in range(3)], config=config)) == ["loss"]


def test_a_metric_that_was_not_computed_is_not_constant() -> None:
    assert describe_constants([{"chrf": float(step)} for step in range(3)], config=translation_config()) == {}
