"""The table of metrics, held against what an evaluation computes and what a recipe may choose."""

import math

import pytest

from dstrain.config.evaluation import Evaluation
from dstrain.config.metrics import (
    KINDS,
    METRICS,
    RANGES,
    WANTED,
    choosing_metrics,
    has_rows,
    interval_ends,
    is_lower_better,
    rank_metrics,
    wanted_metrics,
)
from dstrain.evaluation.metrics import Score, length_scores, parsing_scores
from dstrain.evaluation.text_metrics import Corpus, text_scores
from dstrain.evaluation.typed import TYPED_SCORE

LOSS = "loss"
"""Computed by the evaluation itself, from the model."""
TEXTS = ["[IN:A [SL:B one ] ]"]


def computed_scores(kind: str) -> list[Score]:
    wanted = [item for item in WANTED if any(item == each.wanted_as for each in wanted_metrics(kind, wanted=None))]
    scores = text_scores(Corpus(TEXTS, [TEXTS]), wanted=wanted)
    if kind == "parsing":
        ids = [[1, 2]]
        scores += parsing_scores(TEXTS, TEXTS, hypothesis_ids=ids, reference_ids=ids, sources=["one"], parses=TEXTS)
    return [*scores, *length_scores([2], was_cut=[False])]


def computed(kind: str) -> set[str]:
    others = {LOSS} | ({TYPED_SCORE} if kind == "parsing" else set())
    return {score.name for score in computed_scores(kind)} | others


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_names_every_score_that_an_evaluation_computes(kind: str) -> None:
    assert {metric.name for metric in METRICS if kind in metric.tasks} == computed(kind)


def test_every_metric_has_one_row_with_unit_and_meaning() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert all(metric.unit and metric.meaning.endswith(".") for metric in METRICS)


def test_the_keys_of_a_recipe_name_every_metric_of_the_table_that_can_choose_and_every_item() -> None:
    about = {key: str(Evaluation.model_fields[key].description) for key in ("best_metric", "metrics")}
    assert all(f"`{metric.name}`" in about["best_metric"] for metric in METRICS if metric.can_choose)
    assert all(f"`{item}`" in about["metrics"] for item in WANTED)


def test_the_metrics_of_a_task_have_its_default_first_and_the_loss_last() -> None:
    assert choosing_metrics("translation") == ("bleu", "chrf", "loss")
    assert choosing_metrics("parsing") == ("exact_match", "loss")
    assert choosing_metrics("text") == ("rouge_l", "rouge_1", "rouge_2", "exact_match", "loss")
    assert choosing_metrics("parsing", sets=["a", "b"])[2:] == ("a/exact_match", "b/exact_match")


def test_the_first_metric_that_a_recipe_names_is_its_default_but_a_parse_is_chosen_by_its_own() -> None:
    wanted = ["ter", "a.b:mine", "bleu"]
    assert choosing_metrics("translation", wanted=wanted) == ("ter", "bleu", "mine", "loss")
    assert choosing_metrics("parsing", wanted=["chrf"]) == ("exact_match", "chrf", "loss")
    assert choosing_metrics("text", wanted=["a:mine"], sets=["x"]) == ("mine", "loss", "x/mine")
    assert rank_metrics("text", best="loss", wanted=["ter", "a:mine"]) == ("loss", "ter", "mine")


def test_ties_by_the_metric_of_a_set_are_broken_by_the_other_metrics_of_that_set_first() -> None:
    assert rank_metrics("translation", best="flores/bleu") == ("flores/bleu", "flores/chrf", "bleu", "chrf", "loss")


def test_less_is_better_for_errors_and_for_the_loss_alone() -> None:
    assert [metric.name for metric in METRICS if is_lower_better(metric.name)] == ["ter", "loss"]
    assert is_lower_better("flores/ter")
    assert not is_lower_better("mine")


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_says_which_scores_have_numbers_of_each_row(kind: str) -> None:
    found = {score.name: score.rows for score in computed_scores(kind)}
    assert {name: rows is not None for name, rows in found.items()} == {name: has_rows(name) for name in found}
    assert all(len(rows) == 1 for rows in found.values() if rows is not None)
    assert (has_rows("flores/bleu"), has_rows("loss"), has_rows("mine")) == (True, False, True)


@pytest.mark.parametrize(
    ("metric", "value", "half", "ends"),
    [
        ("bleu", 40.0, 2.0, (38.0, 42.0)),
        ("bleu", 99.0, 2.0, (97.0, 100.0)),
        ("chrf", 1.0, 2.0, (0.0, 3.0)),
        ("exact_match", 0.5, 0.75, (0.0, 1.0)),
        ("news/exact_match", 0.5, 0.75, (0.0, 1.0)),
        ("ter", 120.0, 200.0, (0.0, 320.0)),
        ("of_my_own", 0.5, 2.0, (-1.5, 2.5)),
        ("bleu", 100.00000000000004, 0.0, (100.00000000000004, 100.00000000000004)),
    ],
)
def test_an_interval_ends_where_the_score_does(
    metric: str, value: float, half: float, ends: tuple[float, float]
) -> None:
    assert interval_ends(metric, value=value, half=half) == ends


def test_every_range_is_that_of_a_unit_in_the_table() -> None:
    assert RANGES.keys() < {metric.unit for metric in METRICS}


def test_an_interval_that_is_not_known_has_no_ends() -> None:
    assert all(math.isnan(end) for end in interval_ends("bleu", value=50.0, half=math.nan))
