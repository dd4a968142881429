"""The settings of a run as dotted keys, and what a reader wants to know first. Pure."""

import json
from collections.abc import Iterator
from typing import Any

from dstrain.cluster.console import duration
from dstrain.config.secrets import mask_value
from dstrain.html_report.files import RunFiles
from dstrain.html_report.privacy import shown_path, shown_text
from dstrain.reporting.markdown import number
from dstrain.reporting.metadata import title
from dstrain.reporting.results import number_with_interval
from dstrain.reporting.standing import Standing

Line = tuple[str, str]


def list_settings(files: RunFiles) -> list[Line]:
    """Every key of the configuration that has a value, with that value; paths and secrets as `privacy` shows them."""
    values = mask_value(files.record.config.model_dump(mode="json"))
    return [(key, _text(value)) for key, value in _leaves(values) if value is not None]


def _leaves(value: Any, *, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from _leaves(child, at=f"{at}.{key}" if at else str(key))
    elif isinstance(value, list) and any(isinstance(child, dict | list) for child in value):
        for place, child in enumerate(value):
            yield from _leaves(child, at=f"{at}.{place}")
    else:
        yield at, value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return shown_path(value)
    return shown_text(json.dumps(value, ensure_ascii=False))


def summarize_run(files: RunFiles, *, standing: Standing) -> list[Line]:
    """Label and value of what a reader wants to know first."""
    record, info = files.record, files.record.info
    lines = [("state", standing.state), ("task", record.config.task.title)]
    if info.model.base:
        lines.append(("model", shown_path(info.model.base)))
    if num_parameters := info.model.num_exported_parameters or info.model.num_parameters:
        lines.append(("parameters", f"{num_parameters:,}"))
    lines.append(("steps", _describe_steps(files, known=standing.step)))
    if (best := record.best) is not None:
        metric = record.config.best_metric
        lines.append((f"best {title(metric)}", f"{number_with_interval(best, metric)} at step {best.step:,}"))
    if record.average is not None:
        metric, scores = record.config.best_metric, record.average.scores
        if metric in scores.scores:
            value = f"{number(scores.scores[metric])} ({len(record.average.steps)} checkpoints)"
            lines.append((f"average: {title(metric)}", value))
    if record.train_rows and (seconds := record.train_rows[-1].elapsed_seconds) is not None:
        lines.append(("time trained", duration(seconds)))
    if info.world_size:
        lines.append(("ranks", f"{info.world_size} ({info.device or 'unknown device'})"))
    for split, label in (("train", "training rows"), ("eval", "evaluation rows")):
        if split in info.data and info.data[split].rows is not None:
            lines.append((label, f"{info.data[split].rows:,}"))
    if version := info.versions.get("dstrain"):
        lines.append(("dstrain", version))
    return lines


def _describe_steps(files: RunFiles, *, known: int | None) -> str:
    """`120 of 1,000`; `known` is the step of a run whose rows are written every so many steps, or cannot be read."""
    total = files.record.info.total_steps
    if known is None and files.has_unread_rows and not files.rows:
        return "not known"
    return f"{files.record.last_step if known is None else known:,}" + (f" of {total:,}" if total else "")
