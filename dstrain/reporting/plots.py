"""The two plots of a card: losses and scores over optimizer steps.

Independent of the card's text. Uses matplotlib's object interface, which needs no display and no global state.
"""

import itertools
import math
from collections.abc import Sequence
from io import BytesIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from dstrain.config.metrics import METRICS, interval_ends, is_of_set
from dstrain.reporting.metadata import title
from dstrain.run_folder.layout import NAMES
from dstrain.run_folder.record import RunRecord
from dstrain.run_folder.rows import EvalRow

LOG_SCALE_FROM = 10
"""Ratio of the highest to the lowest loss above which the axis is logarithmic: a linear one would hide the end of training."""

BLUE, ORANGE, GREY, GREEN = "#2f6fb2", "#d9722e", "#6b7280", "#3f8f5f"


def has_losses(record: RunRecord) -> bool:
    """Whether there is a finite loss to draw."""
    return bool(_finite_losses(record))


def _finite_losses(record: RunRecord) -> list[float]:
    losses = [row.loss for row in record.train_rows] + [row.scores.get("loss", math.nan) for row in record.eval_rows]
    return list(filter(math.isfinite, losses))


def has_scores(record: RunRecord) -> bool:
    """Whether there is a finite score of the task to draw."""
    metric = _drawn(record)[0]
    return any(math.isfinite(row.scores.get(metric, math.nan)) for row in record.eval_rows)


def draw_plots(record: RunRecord) -> dict[str, bytes]:
    """The plots for which the record has values, as PNG files by their names in a run folder, the losses first."""
    drawn = {}
    for path, present, draw in (
        (NAMES.loss_plot, has_losses, draw_losses),
        (NAMES.score_plot, has_scores, draw_scores),
    ):
        if present(record):
            file = BytesIO()
            # no software version in the file, so that the same record always produces the same bytes
            draw(record).savefig(file, format="png", dpi=144, metadata={"Software": None})
            drawn[str(path)] = file.getvalue()
    return drawn


def draw_losses(record: RunRecord) -> Figure:
    """Training loss per logging interval and validation loss per evaluation, in nats per target token."""
    figure, axes = _canvas(f"{record.config.name}: loss")
    smoothing = record.config.training.label_smoothing
    label = f"training (label smoothing {smoothing:g})" if smoothing else "training"
    axes.plot(
        [row.step for row in record.train_rows],
        [row.loss for row in record.train_rows],
        color=BLUE,
        lw=1.2,
        label=label,
    )
    _line(axes, record.eval_rows, metric="loss", color=ORANGE, label="validation")
    _mark_resumes(axes, record)
    axes.set_ylabel("cross-entropy (nats per target token)")
    losses = _finite_losses(record)
    if 0 < LOG_SCALE_FROM * min(losses) < max(losses):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.legend(frameon=False)
    return figure


def draw_scores(record: RunRecord) -> Figure:
    """The task's scores per evaluation; a star marks the best one by the recipe's metric, which may be that of one set.

    Bars are 95 % intervals.
    """
    chosen_by = record.config.best_metric
    of_all = _drawn(record)
    metrics = [*of_all, *([chosen_by] if is_of_set(chosen_by) else [])]
    figure, axes = _canvas(f"{record.config.name}: {title(of_all[0])} on the evaluation set")
    for metric, color in zip(metrics, itertools.cycle((BLUE, GREY, GREEN)), strict=False):
        if any(metric in row.scores for row in record.eval_rows):
            _line(axes, record.eval_rows, metric=metric, color=color, label=title(metric))
    _mark_resumes(axes, record)
    marked, best = chosen_by if is_of_set(chosen_by) else of_all[0], record.best
    if best is not None and math.isfinite(best.scores.get(marked, math.nan)):
        _mark_best(axes, best, metric=marked, chosen_by=chosen_by)
    axes.set_ylabel(f"{', '.join(map(title, metrics))} ({_unit(of_all[0])})")
    axes.legend(frameon=False, loc="best")
    return figure


def _drawn(record: RunRecord) -> tuple[str, ...]:
    """The scores over all rows that are drawn together: the task's first, and those in the same unit."""
    *scores, _ = record.config.choosing  # the loss has a plot of its own
    return tuple(metric for metric in scores if _unit(metric) == _unit(scores[0]))


def _unit(metric: str) -> str:
    return next((known.unit for known in METRICS if known.name == metric), "in its own unit")


def _canvas(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    axes.grid(axis="y", color="#e5e7eb", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _line(axes: Axes, rows: Sequence[EvalRow], *, metric: str, color: str, label: str) -> None:
    steps = [row.step for row in rows]
    values = [row.scores.get(metric, math.nan) for row in rows]  # matplotlib leaves a gap at NaN
    axes.plot(steps, values, color=color, lw=1.6, marker="o", ms=3.5, label=label)
    intervals = [row.intervals.get(metric, math.nan) for row in rows]
    if any(map(math.isfinite, intervals)):
        ends = [interval_ends(metric, value=value, half=half) for value, half in zip(values, intervals, strict=True)]
        below = [value - low for value, (low, _) in zip(values, ends, strict=True)]
        above = [high - value for value, (_, high) in zip(values, ends, strict=True)]
        axes.errorbar(steps, values, yerr=[below, above], ls="", ecolor=color, elinewidth=0.9, capsize=2.0, alpha=0.5)


def _mark_resumes(axes: Axes, record: RunRecord) -> None:
    steps = sorted({event.step for event in record.events if event.event == "resume"})
    for number, step in enumerate(steps):
        axes.axvline(step, color=GREY, lw=0.8, ls=":", label="resumed" if number == 0 else None)


def _mark_best(axes: Axes, best: EvalRow, *, metric: str, chosen_by: str) -> None:
    value = best.scores[metric]
    label = f"best by {title(chosen_by)}: {title(metric)} {value:.4f} at step {best.step:,}"
    axes.plot([best.step], [value], ls="", marker="*", ms=14, color=ORANGE, zorder=5, label=label)
