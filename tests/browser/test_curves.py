"""Curves in a real browser: drawn, read, zoomed, smoothed, compared; by mouse and by keys."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.actions import (
    chart,
    choose,
    count_drawn,
    count_pixels,
    first_value,
    legend,
    plot_box,
    steps_shown,
)
from tests.browser.browser import Page
from tests.browser.documents import make_document, make_run

Show = Callable[[dict[str, Any]], Page]


def test_every_curve_is_drawn_and_a_column_without_values_has_no_chart(show: Show) -> None:
    page = show(make_document(make_run("one", seed=1)))
    titles = page.evaluate("[...document.querySelectorAll('.chart h4')].map(each => each.firstChild.textContent)")
    assert titles[:2] == ["Word accuracy", "Evaluation loss"]  # the metric that chooses the best model comes first
    assert set(titles[2:]) == {
        "Loss",
        "Learning rate",
        "Gradient norm",
        "Target tokens per second",
        "Padding",
        "Peak memory",
    }
    for title in titles:
        assert count_drawn(page, title) > 100, title


def test_an_interval_is_shaded(show: Show) -> None:
    page = show(make_document(make_run("one", seed=1)))
    tint = "alpha > 20 && alpha < 45 && blue > red + 80"
    with_interval, without = (count_pixels(page, title, tint) for title in ("Word accuracy", "Evaluation loss"))
    assert with_interval > 10 * (without + 10)


def test_hovering_reads_the_values_of_every_chart_and_the_mark_beside(show: Show) -> None:
    run = make_run("one", seed=1)
    page = show(make_document(run))
    left, top, width, height = plot_box(page, "Learning rate")
    page.mouse("mouseMoved", left + width / 2, top + height / 2)
    page.frame()
    assert "step 300" in legend(page, "Learning rate")
    loss = dict(zip(run["train"]["step"], run["train"]["columns"][0]["values"], strict=True))[300]
    assert first_value(page, "Loss") == pytest.approx(loss, rel=1e-3)
    tip = page.evaluate(f"{chart('Learning rate')}.querySelector('.tip').innerText")
    assert "evaluation of step 300" in tip
    assert "checkpoint of step 300" in tip


def test_a_drag_zooms_all_charts_and_show_all_undoes_it(show: Show) -> None:
    page = show(make_document(make_run("one", seed=1)))
    assert steps_shown(page) == [0, 600]
    left, top, width, height = plot_box(page, "Loss")
    page.drag((left + width / 3, top + height / 2), (left + width * 2 / 3, top + height / 2))
    assert steps_shown(page) == pytest.approx([200, 400], abs=5)
    page.mouse("mouseMoved", 1, 1)
    page.frame()
    shown = page.evaluate("[...document.querySelectorAll('.chart .legend .at')].map(each => each.innerText)")
    assert {text.replace("last, step ", "") for text in shown} <= {"300", "390", "400"}
    page.evaluate(
        "[...document.querySelectorAll('button')].find(each => each.textContent === 'Show all steps').click()"
    )
    assert steps_shown(page) == [0, 600]


def test_keys_read_values_and_zoom(show: Show) -> None:
    page = show(make_document(make_run("one", seed=1)))
    page.evaluate(f"{chart('Loss')}.querySelector('.plot').focus()")
    page.press("ArrowRight", times=3)
    page.frame()
    assert "step 30" in legend(page, "Loss")
    page.press("+")
    assert steps_shown(page)[1] < 400
    page.press("0")
    assert steps_shown(page) == [0, 600]


def test_a_log_scale_can_be_turned_off_and_on(show: Show) -> None:
    page = show(make_document(make_run("one", seed=1)))
    button = f"{chart('Loss')}.querySelector('figcaption button')"
    assert page.evaluate(f"{button}.getAttribute('aria-pressed')") == "true"
    before = page.evaluate(f"{chart('Loss')}.querySelector('canvas').toDataURL()")
    page.evaluate(f"{button}.click()")
    page.frame()
    assert page.evaluate(f"{chart('Loss')}.querySelector('canvas').toDataURL()") != before
    assert count_drawn(page, "Loss") > 100


def test_smoothing_says_so_and_is_the_mean_of_the_points_around(show: Show) -> None:
    run = make_run("one", seed=1)
    page = show(make_document(run))
    assert "smoothed" not in legend(page, "Loss")
    choose(page, "Smoothing", "over 5 points")
    assert "smoothed over 5 points" in legend(page, "Loss")
    assert "smoothed" not in legend(page, "Word accuracy")
    assert "smoothed" not in legend(page, "Learning rate")  # its corners are no noise
    page.evaluate(f"{chart('Loss')}.querySelector('.plot').focus()")
    page.press("ArrowRight", times=10)
    page.frame()
    values = run["train"]["columns"][0]["values"][7:12]
    assert first_value(page, "Loss") == pytest.approx(math.fsum(values) / 5, rel=1e-3)


def test_two_runs_are_overlaid_with_names_and_dashes(show: Show) -> None:
    page = show(make_document(make_run("one", seed=1), make_run("two", seed=2)))
    for title in ("Word accuracy", "Loss"):
        assert "one" in legend(page, title)
        assert "two" in legend(page, title)
    dashes = page.evaluate(
        f"[...{chart('Loss')}.querySelectorAll('.legend line')].map(each => each.getAttribute('stroke-dasharray'))"
    )
    assert len(set(dashes)) == 2


def test_each_run_has_the_step_of_its_own_value_where_another_is_longer(show: Show) -> None:
    long, short = make_run("long", seed=1), make_run("short", seed=2, steps=[100, 200, 300], points=30)
    page = show(make_document(long, short))
    last = [run["metrics"][1]["curves"][0]["value"][-1] for run in (long, short)]
    shown = f"long {last[0]:.4f} ({last[0] - 0.03:.4f} to {last[0] + 0.03:.4f}) "
    shown += f"short {last[1]:.4f} ({last[1] - 0.03:.4f} to {last[1] + 0.03:.4f}) at step 300 last, step 600"
    assert legend(page, "Word accuracy") == shown
    left, top, width, height = plot_box(page, "Learning rate")
    page.mouse("mouseMoved", left + width - 1, top + height / 2)
    page.frame()
    assert "at step 300 step 600" in legend(page, "Learning rate")
    page.mouse("mouseMoved", left + width / 3, top + height / 2)
    page.frame()
    assert "at step" not in legend(page, "Learning rate")


def test_a_point_that_no_line_reaches_is_drawn(show: Show) -> None:
    run = make_run("one", seed=1, points=6)
    (rate,) = (column for column in run["train"]["columns"] if column["name"] == "learning_rate")
    rate["values"] = [None, 0.5, None, None, None, None]
    page = show(make_document(run))
    assert count_drawn(page, "Learning rate") > 20
    assert "0.5000" in legend(page, "Learning rate")


def test_the_main_metric_has_a_chart_where_it_is_0_and_others_have_a_sentence(show: Show) -> None:
    run = make_run("one", seed=1)
    for metric in run["metrics"]:
        for each in metric["curves"]:
            each.update(value=[0.0] * 6, low=[0.0] * 6, high=[0.0] * 6)
    page = show(make_document(run))
    titles = page.evaluate("[...document.querySelectorAll('.chart h4')].map(each => each.firstChild.textContent)")
    assert titles[:2] == ["Word accuracy", "Loss"]
    assert count_drawn(page, "Word accuracy") > 100
    assert "0 at every evaluation: Evaluation loss." in page.evaluate("document.querySelector('#curves').innerText")


def test_groups_have_curves_of_their_own(show: Show) -> None:
    page = show(make_document(make_run("one", seed=1)))
    choose(page, "Scores on", "evaluation, every group")
    for group in ("weather", "alarm", "music"):
        assert group in legend(page, "Word accuracy")
    assert page.evaluate("document.querySelectorAll('.chart').length") == 7  # the loss has no groups


def test_values_can_be_read_as_a_table(show: Show) -> None:
    run = make_run("one", seed=1)
    page = show(make_document(run))
    page.evaluate(f"{chart('Word accuracy')}.querySelector('details').open = true")
    page.until(f"{chart('Word accuracy')}.querySelectorAll('tbody tr').length === 6")
    last = page.evaluate(f"{chart('Word accuracy')}.querySelector('tbody tr:last-child').innerText")
    value = run["metrics"][1]["curves"][0]["value"][-1]
    assert f"{value:.4f} ({value - 0.03:.4f} to {value + 0.03:.4f}), best" in last
