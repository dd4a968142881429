"""The curves of a run have the numbers of its rows and score files, with their intervals, and are not too many."""

import math
from dataclasses import replace
from typing import Any

import pytest

from dstrain.html_report import curves
from dstrain.html_report.curves import OWN_SET, draw_metrics, draw_training, largest_groups, list_scores
from dstrain.html_report.document import Curve, Metric
from dstrain.run_folder.record import RunRecord, build_record
from dstrain.run_folder.rows import EvalRow, Row
from dstrain.run_folder.scores import OutputRate, ScoreFile
from tests.unit.reporting.reporting_cases import (
    BLEU_SIGNATURE,
    run_info,
    train_row,
    translation_config,
    translation_record,
    translation_row,
)


def build(*rows: Row, **changes: Any) -> RunRecord:
    return build_record(translation_config(), info=run_info(), rows=rows, **changes)


def curve(metrics: list[Metric], name: str, *, group: str | None = None, set_name: str = OWN_SET) -> Curve:
    (found,) = (
        each
        for metric in metrics
        if metric.name == name
        for each in metric.curves
        if (each.set, each.group) == (set_name, group)
    )
    return found


def test_training_has_a_value_of_each_quantity_for_each_row() -> None:
    rows = [train_row(10), replace(train_row(20), padded_source_tokens=0, padded_target_tokens=0, loss_scale=None)]
    found = draw_training(rows)
    columns = {each.name: list(each.values) for each in found.columns}
    assert found.step == [10, 20]
    assert columns["loss"] == [row.loss for row in rows]
    assert columns["gradient_norm"] == [1.2, 1.2]
    assert columns["padding"] == [pytest.approx(1 - 1850 / 2000), None]
    assert columns["memory"][0] == pytest.approx(731e6 / 2**30)
    assert columns["loss_scale"] == [65536.0, None]
    assert "data_seconds" not in columns  # no row has it


def test_long_training_is_thinned_to_its_first_and_last_rows_and_others_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(curves, "MAX_POINTS", 10)
    found = draw_training([train_row(step) for step in range(1, 1001)])
    assert len(found.step) == 10
    assert (found.step[0], found.step[-1]) == (1, 1000)


def test_every_metric_has_its_curve_and_the_one_that_chooses_comes_first() -> None:
    found = draw_metrics(translation_record())
    assert [each.name for each in found] == ["bleu", "gen_len", "chrf", "hit_cap_rate", "loss"]
    assert [each.is_primary for each in found] == [True, False, False, False, False]
    assert [each.higher_is_better for each in found] == [True, None, True, False, False]
    assert (found[0].label, found[0].signature) == ("BLEU", BLEU_SIGNATURE)
    assert curve(found, "bleu").step == [5000, 50000, 95000]
    assert curve(found, "bleu").value == [12.7212, 16.9704, 25.8137]
    assert curve(found, "loss").value == [0.7640, 0.5834, 0.4282]


def test_an_interval_reaches_as_far_below_as_above_and_is_absent_where_it_is_not_known() -> None:
    rows = [
        translation_row(100, bleu=20.0, loss=1.0, intervals={"bleu": 1.5}),
        translation_row(200, bleu=math.nan, loss=1.0, intervals={"bleu": 1.5}),
        translation_row(300, bleu=22.0, loss=1.0),
    ]
    found = curve(draw_metrics(build(*rows)), "bleu")
    assert (found.value, found.low, found.high) == ([20.0, None, 22.0], [18.5, None, None], [21.5, None, None])


def test_an_interval_ends_where_the_score_does_and_that_of_an_unknown_score_nowhere() -> None:
    row = translation_row(
        100, bleu=98.0, loss=1.0, intervals={"bleu": 3.0, "exact_match": 0.2, "comet": 2.0}, groups={"a": {"bleu": 1.0}},
        group_intervals={"a": {"bleu": 4.0}},
    )  # fmt: skip
    row = replace(row, scores=row.scores | {"exact_match": 0.1, "comet": 0.5})
    found = draw_metrics(build(row))
    ends = {name: (curve(found, name).low[0], curve(found, name).high[0]) for name in row.intervals}
    assert ends == {"bleu": (95.0, 100.0), "exact_match": (0.0, pytest.approx(0.3)), "comet": (-1.5, 2.5)}
    assert (curve(found, "bleu", group="a").low, curve(found, "bleu", group="a").high) == ([0.0], [5.0])
    listed = {each.name: (each.low, each.high) for each in list_scores(row, config=translation_config())}
    assert ends.items() <= listed.items()


def test_sets_groups_and_test_sets_have_curves_of_their_own() -> None:
    row = translation_row(
        100,
        bleu=20.0,
        loss=1.0,
        groups={"news": {"bleu": 30.0, "num_rows": 7}, "talks": {"bleu": 10.0, "num_rows": 3}},
        group_intervals={"news": {"bleu": 2.0}},
    )
    row = replace(row, scores=row.scores | {"news/bleu": 30.0})
    test = ScoreFile(step=100, scores={"bleu": 5.0}, intervals={"bleu": 0.5})
    found = draw_metrics(build(row, test_sets={"flores": (test,)}))
    assert "news/bleu" not in {each.name for each in found}
    assert curve(found, "bleu", group="news") == Curve(OWN_SET, "news", [100], [30.0], [28.0], [32.0])
    assert curve(found, "bleu", group="talks").low == [None]
    assert curve(found, "bleu", set_name="flores").high == [5.5]


def test_shares_of_failing_hypotheses_are_metrics_of_which_less_is_better() -> None:
    row = translation_row(100, bleu=20.0, loss=1.0, outputs={"loop": OutputRate(0.25, 0.0)})
    metric = draw_metrics(build(row))[-1]
    assert (metric.label, metric.higher_is_better) == ("hypotheses: end in one piece over and over", False)
    assert metric.curves[0].value == [0.25]


def test_a_length_is_neither_better_nor_worse() -> None:
    row = translation_row(100, bleu=20.0, loss=1.0)
    row = replace(row, scores=row.scores | {"gen_len": 12.0, "hit_cap_rate": 0.1, "ter": 60.0})
    directions = {each.name: each.higher_is_better for each in draw_metrics(build(row))}
    wanted = {"bleu": True, "chrf": True, "gen_len": None, "hit_cap_rate": False, "ter": False, "loss": False}
    assert directions == wanted


def test_only_the_largest_groups_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "MAX_GROUPS", 2)
    groups = {name: {"bleu": 1.0, "num_rows": rows} for name, rows in (("a", 1), ("b", 9), ("c", 5))}
    record = build(translation_row(100, bleu=20.0, loss=1.0, groups=groups))
    assert largest_groups(record, set_name=OWN_SET) == (["b", "c"], 1)
    assert [each.group for each in draw_metrics(record)[0].curves] == [None, "b", "c"]


def test_many_evaluations_are_thinned_and_the_best_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "MAX_EVALUATIONS", 5)
    rows = [translation_row(step, bleu=50.0 if step == 7 else 1.0, loss=1.0) for step in range(1, 101)]
    assert {1, 7, 100} < set(curve(draw_metrics(build(*rows)), "bleu").step)
    assert len(curve(draw_metrics(build(*rows)), "bleu").step) == 5


def test_the_scores_of_an_evaluation_are_listed_in_the_order_of_the_metrics() -> None:
    row = EvalRow(
        step=1, epoch=1.0, scores={"loss": 2.0, "chrf": math.nan, "bleu": 3.0, "a/bleu": 4.0}, intervals={"bleu": 1.0}
    )
    found = list_scores(row, config=translation_config())
    assert [(each.name, each.value, each.low, each.high) for each in found] == [
        ("bleu", 3.0, 2.0, 4.0),
        ("loss", 2.0, None, None),
    ]
