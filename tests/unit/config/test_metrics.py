"""The table of metrics, held against what an evaluation computes and what a recipe may choose."""

from typing import get_args

import pytest

from dstrain.config.metrics import METRICS, choosing_metrics
from dstrain.config.recipe import Evaluation
from dstrain.evaluation.metrics import length_scores, parsing_scores, translation_scores
from dstrain.evaluation.typed import TYPED_SCORE

LOSS = "loss"
"""Computed by the evaluation itself, from the model."""


def names(kind: str) -> set[str]:
    return {metric.name for metric in METRICS if kind in metric.tasks}


def computed(kind: str) -> set[str]:
    texts = ["[IN:A [SL:B one ] ]"]
    if kind == "translation":
        scores = translation_scores(texts, texts, target_language=None)
    else:
        ids = [[1, 2]]
        scores = parsing_scores(texts, texts, hypothesis_ids=ids, reference_ids=ids, sources=["one"], parses=texts)
    others = {LOSS} | ({TYPED_SCORE} if kind == "parsing" else set())
    return {score.name for score in [*scores, *length_scores([2], was_cut=[False])]} | others


@pytest.mark.parametrize("kind", ["translation", "parsing"])
def test_the_table_names_every_score_that_an_evaluation_computes(kind: str) -> None:
    assert names(kind) == computed(kind)


def test_every_metric_has_one_row_with_unit_and_meaning() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert all(metric.unit and metric.meaning.endswith(".") for metric in METRICS)


def test_a_recipe_may_choose_by_every_metric_of_the_table_that_can() -> None:
    choices, _ = get_args(Evaluation.model_fields["best_metric"].annotation)
    assert set(get_args(choices)) == {metric.name for metric in METRICS if metric.can_choose}


def test_the_metrics_of_a_task_have_its_default_first_and_the_loss_last() -> None:
    assert choosing_metrics("translation") == ("bleu", "chrf", "loss")
    assert choosing_metrics("parsing") == ("exact_match", "loss")
