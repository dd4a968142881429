"""The plots: every finite point of the record, the best evaluation, and units on the axes."""

import math

import numpy as np
import pytest

from dstrain.reporting.plots import draw_losses, draw_plots, draw_scores
from dstrain.run_folder.record import RunRecord, build_record
from dstrain.run_folder.rows import EventRow, Row
from tests.unit.reporting.reporting_cases import (
    parsing_config,
    parsing_record,
    run_info,
    train_row,
    translation_config,
    translation_record,
    translation_row,
)


@pytest.mark.parametrize("record", [translation_record(), parsing_record()], ids=["translation", "parsing"])
def test_both_plots_are_png_files_and_the_same_each_time(record: RunRecord) -> None:
    drawn = draw_plots(record)
    assert list(drawn) == ["plots/loss.png", "plots/score.png"]
    assert all(content.startswith(b"\x89PNG") for content in drawn.values())
    assert draw_plots(record) == drawn


def test_the_loss_plot_holds_training_and_validation_loss_with_units() -> None:
    record = translation_record()
    axes = draw_losses(record).axes[0]
    training, validation = axes.get_lines()
    assert np.asarray(training.get_ydata()).tolist() == [row.loss for row in record.train_rows]
    assert np.asarray(validation.get_xdata()).tolist() == [5000, 50000, 95000]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("optimizer step", "cross-entropy (nats per target token)")


def test_a_loss_that_falls_far_is_drawn_on_a_logarithmic_axis() -> None:
    assert draw_losses(parsing_record()).axes[0].get_yscale() == "log"
    assert draw_losses(translation_record()).axes[0].get_yscale() == "linear"


def test_the_score_plot_marks_the_evaluation_that_the_metric_of_the_recipe_selects() -> None:
    by_loss = parsing_record(parsing_config(evaluation={"best_metric": "loss"}))
    mark = draw_scores(by_loss).axes[0].get_lines()[-1]
    assert (np.asarray(mark.get_xdata()).tolist(), np.asarray(mark.get_ydata()).tolist()) == ([1200], [0.5365])
    assert mark.get_label() == "best by validation loss: exact match 0.5365 at step 1,200"


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
def test_a_metric_of_one_evaluation_set_has_a_curve_and_the_star(metric: str) -> None:
    data = {"train": [{"path": "a.tsv"}], "eval": [{"path": "b.tsv", "name": "dev"}, {"path": "c.tsv"}]}
    config = translation_config(data=data, evaluation={"best_metric": f"dev/{metric}"})
    rows: list[Row] = [translation_row(step, bleu=1.0, loss=2.0) for step in (50, 100)]
    for row, value in zip(rows, (7.0, 6.0), strict=True):
        row.scores[f"dev/{metric}"] = value
    axes = draw_scores(build_record(config, info=run_info(), rows=rows)).axes[0]
    title = {"bleu": "BLEU (dev)", "chrf": "chrF (dev)"}[metric]
    *_, curve, mark = axes.get_lines()
    assert (curve.get_label(), np.asarray(curve.get_ydata()).tolist()) == (title, [7.0, 6.0])
    assert (np.asarray(mark.get_xdata()).tolist(), np.asarray(mark.get_ydata()).tolist()) == ([50], [7.0])
    assert mark.get_label() == f"best by {title}: {title} 7.0000 at step 50"
    assert axes.get_ylabel() == f"BLEU, chrF, {title} (0 to 100)"


def test_the_scores_in_the_unit_of_the_first_are_drawn_together() -> None:
    metrics = ["ter", "bleu", "chrf", "rouge", "a:mine"]
    rows: list[Row] = [translation_row(step, bleu=1.0, loss=2.0) for step in (50, 100)]
    for row in rows:
        row.scores.update(dict.fromkeys(["ter", "bleu", "chrf", "rouge_l", "mine"], 1.0))

    def drawn(wanted: list[str]) -> tuple[list[str], str]:
        config = translation_config(evaluation={"metrics": wanted})
        axes = draw_scores(build_record(config, info=run_info(), rows=rows)).axes[0]
        return axes.get_legend_handles_labels()[1][:-1], axes.get_ylabel()

    assert drawn(metrics) == (["TER"], "TER (errors per 100 words)")
    assert drawn(metrics[1:]) == (["BLEU", "chrF"], "BLEU, chrF (0 to 100)")
    assert drawn(metrics[4:]) == (["mine"], "mine (in its own unit)")


def test_label_smoothing_and_resumes_are_in_the_legend() -> None:
    training = {"batch_size": 16, "epochs": 6.0, "learning_rate": 3e-4, "label_smoothing": 0.1}
    rows: list[Row] = [train_row(50), EventRow("resume", 50), train_row(100), EventRow("resume", 100)]
    axes = draw_losses(build_record(translation_config(training=training), info=run_info(), rows=rows)).axes[0]
    assert axes.get_legend_handles_labels()[1] == ["training (label smoothing 0.1)", "validation", "resumed"]


def test_a_run_without_finite_numbers_has_no_plots() -> None:
    rows: list[Row] = [train_row(50, loss=math.nan), translation_row(50, bleu=math.nan, loss=math.inf)]
    assert draw_plots(build_record(translation_config(), info=run_info(), rows=rows)) == {}


def test_scores_with_intervals_have_bars_of_that_size() -> None:
    rows: list[Row] = [
        translation_row(50, bleu=30.0, loss=2.0, intervals={"bleu": 1.5}),
        translation_row(100, bleu=35.0, loss=1.0),
    ]
    record = build_record(translation_config(), info=run_info(), rows=rows)
    (bars,) = [each for each in draw_scores(record).axes[0].containers if each.has_yerr]
    (lines,) = bars[2]
    assert np.asarray(lines.get_segments()[0]).tolist() == [[50.0, 28.5], [50.0, 31.5]]
    assert not draw_scores(translation_record()).axes[0].containers


def test_bars_end_where_the_score_does() -> None:
    rows: list[Row] = [
        translation_row(50, bleu=99.0, loss=2.0, intervals={"bleu": 1.5}),
        translation_row(100, bleu=100.00000000000004, loss=1.0, intervals={"bleu": 0.0}),  # as sacreBLEU rounds
    ]
    record = build_record(translation_config(), info=run_info(), rows=rows)
    (bars,) = [each for each in draw_scores(record).axes[0].containers if each.has_yerr]
    (lines,) = bars[2]
    assert np.asarray(lines.get_segments()[0]).tolist() == [[50.0, 97.5], [50.0, 100.0]]
