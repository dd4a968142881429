"""Runs side by side: their order, and the recipe keys in which they differ."""

import math
from typing import Any

import pytest

from dstrain.reporting.comparison import (
    Compared,
    as_json,
    describe_run,
    differing_keys,
    markdown_table,
    rank_runs,
    text_table,
    value_at,
    why_unranked,
)
from dstrain.run_folder.record import build_record
from tests.unit.reporting.reporting_cases import parsing_record, run_info, translation_config, translation_row


@pytest.mark.parametrize(
    ("recipes", "keys"),
    [
        ([{"a": 1}], []),
        ([{"a": 1}, {"a": 1}], []),
        ([{"a": 1, "b": 1}, {"a": 1, "b": 2}], ["b"]),
        ([{"a": {"b": 1}}, {"a": {"b": 1}}, {"a": {"b": 2}}], ["a.b"]),
        ([{"a": {"b": 1}}, {"a": {"b": 2}}, {"a": None}], ["a"]),
        ([{"a": [{"b": 1}]}, {"a": [{"b": 2}]}, {"a": []}], ["a"]),
        ([{"a": {"b": 1}, "ab": 1}, {"a": None, "ab": 2}], ["a", "ab"]),
    ],
)
def test_differing_keys_are_leaves_or_the_section_that_only_some_recipes_have(
    recipes: list[dict[str, Any]], keys: list[str]
) -> None:
    assert differing_keys(recipes) == keys


@pytest.mark.parametrize(
    ("key", "value"), [("a.0.b", 1), ("a.1.b", None), ("a", [{"b": 1}]), ("c.d", None), ("c", "text"), ("e.f", None)]
)
def test_the_value_of_a_key_that_a_recipe_lacks_is_none(key: str, value: Any) -> None:
    assert value_at({"a": [{"b": 1}], "c": "text"}, key=key) == value


def compared(run: str, **changes: Any) -> Compared:
    values: dict[str, Any] = {"name": "x", "state": "finished", "step": 40, "total_steps": 40, "metric": "bleu"}
    values |= {"best": 1.0, "best_step": 10, "loss": 0.5, "trained_seconds": 61.7, "recipe": {"seed": 1}}
    return Compared(run=run, **values | changes)


def test_a_run_is_described_by_its_best_evaluation_and_its_last_training_row() -> None:
    run = describe_run(parsing_record(), run="runs/mtop", state="finished")
    assert (run.run, run.state, run.step, run.total_steps) == ("runs/mtop", "finished", 3000, 3000)
    assert (run.metric, run.best, run.best_step) == ("exact_match", 0.5539, 2400)
    assert (run.loss, run.trained_seconds) == (2.0 / 3000, 3723.4)
    assert "machine" not in run.recipe


def test_runs_that_choose_by_a_set_are_compared_by_the_signature_of_that_set() -> None:
    data = {"train": [{"path": "a.tsv"}], "eval": [{"path": "b.tsv", "name": "dev"}]}
    config = translation_config(data=data, evaluation={"best_metric": "dev/bleu"})
    row = translation_row(50, bleu=1.0, loss=2.0, signatures={"bleu": "tok:char", "bleu (dev)": "tok:13a"})
    row.scores["dev/bleu"] = 7.0
    run = describe_run(build_record(config, info=run_info(), rows=[row]), run="a", state="finished")
    assert (run.metric, run.best, run.signature) == ("dev/bleu", 7.0, "tok:13a")


def test_the_best_run_comes_first_and_those_without_a_score_last() -> None:
    runs = [compared("b", best=None), compared("c", best=3.0), compared("e", best=4.0)]
    assert [run.run for run in rank_runs(runs)] == ["e", "c", "b"]
    losses = [compared("a", metric="loss", best=2.0), compared("d", metric="loss", best=1.0)]
    assert [run.run for run in rank_runs(losses)] == ["d", "a"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"metric": "loss"}, "the runs choose their best model by different metrics (bleu, loss)"),
        ({"rows": ("h2",)}, "scores of different evaluation rows cannot be compared (the content of data.eval)"),
        ({"num_rows": 1990}, "scores of different evaluation rows cannot be compared (1,990 and 2,000 rows)"),
        (
            {"recipe": {"evaluation": {"max_rows": 8}}},
            "scores of different evaluation rows cannot be compared (evaluation.max_rows)",
        ),
        ({"signature": "tok:zh"}, "bleu was computed in different ways (tok:13a; tok:zh)"),
    ],
)
def test_runs_whose_scores_cannot_be_compared_stay_as_given_and_the_reason_is_said(
    changes: dict[str, Any], reason: str
) -> None:
    same: dict[str, Any] = {"rows": ("h1",), "num_rows": 2000, "signature": "tok:13a"}
    runs = [compared("worse", best=1.0, **same), compared("better", best=2.0, **(same | changes))]
    assert why_unranked(runs) == f"not ranked: {reason}"
    assert rank_runs(runs) == runs


def test_the_same_rows_in_a_file_of_another_name_are_compared() -> None:
    recipes = [{"data": {"eval": [{"path": path}]}} for path in ("a.tsv", "copy.tsv")]
    assert (
        why_unranked([compared("a", recipe=recipes[0], rows=("h",)), compared("b", recipe=recipes[1], rows=("h",))])
        is None
    )
    reason = why_unranked([compared("a", recipe=recipes[0]), compared("b", recipe=recipes[1])])
    assert reason == "not ranked: scores of different evaluation rows cannot be compared (data.eval.0.path)"


def test_json_has_only_the_keys_that_differ_and_null_for_numbers_that_are_not_finite() -> None:
    runs = [
        compared("a", recipe={"seed": 1, "name": "x"}, loss=math.nan),
        compared("b", recipe={"seed": 2, "name": "x"}),
    ]
    first, second = as_json(runs)
    assert (first["recipe"], second["recipe"]) == ({"seed": 1}, {"seed": 2})
    assert (first["loss"], second["loss"]) == (None, 0.5)


def test_both_tables_have_a_column_for_each_differing_key() -> None:
    runs = [compared("a", recipe={"prefix": "long " * 20}), compared("b", recipe={"prefix": "x|y"}, total_steps=None)]
    header, *rows = text_table(runs, width=500).splitlines()
    assert header.split("  ")[-1] == "prefix"
    assert rows[0].endswith("long")
    assert "  40  " in rows[1]
    assert r"x\|y" in markdown_table(runs)


def test_a_score_stands_with_half_its_interval() -> None:
    row = translation_row(50, bleu=39.5, loss=1.0, intervals={"bleu": 0.9})
    run = describe_run(build_record(translation_config(), info=run_info(), rows=[row]), run="runs/a", state="finished")
    assert (run.best, run.interval) == (39.5, 0.9)
    assert "39.5000 ± 0.9000" in text_table([run], width=1000)
    assert as_json([run])[0]["interval"] == 0.9
