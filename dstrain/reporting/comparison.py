"""The table of `dstrain compare`: one row per run, with its best score and the recipe keys in which runs differ. Pure.

Runs are ranked only where their scores can be compared: of one metric, computed alike, on the same rows.
"""

import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dstrain.config.differences import differences
from dstrain.config.metrics import is_lower_better
from dstrain.config.schema import RECIPE_KEYS
from dstrain.reporting import markdown
from dstrain.reporting.terminal import aligned, printable
from dstrain.run_folder.record import RunRecord

MISSING = "-"
NUM_FIXED = 7
"""Number of columns before those of the recipe keys."""
NUM_ROWS_KEY = "evaluation.max_rows"


@dataclass(frozen=True)
class Compared:
    """One run, as a row of the table."""

    run: str
    """Its folder, as given on the command line."""
    name: str
    state: str
    """The state that `dstrain status` reports."""
    step: int
    total_steps: int | None
    metric: str
    """The score that selects the best evaluation."""
    best: float | None
    best_step: int | None
    loss: float | None
    """Of the last training row."""
    trained_seconds: float | None
    recipe: Mapping[str, Any]
    rows: tuple[str, ...] = ()
    """Hashes of the evaluation sources; empty if they are not recorded."""
    num_rows: int | None = None
    """Evaluation rows that were scored."""
    signature: str | None = None
    """How the score was computed."""
    interval: float | None = None
    """Half the 95 % interval of `best`."""


def describe_run(record: RunRecord, *, run: str, state: str) -> Compared:
    """The row of a run."""
    metric, best = record.config.best_metric, record.best
    last = record.train_rows[-1] if record.train_rows else None
    return Compared(
        run=run,
        name=record.config.name,
        state=state,
        step=record.last_step,
        total_steps=record.info.total_steps,
        metric=metric,
        best=best.scores[metric] if best else None,
        best_step=best.step if best else None,
        loss=last.loss if last else None,
        trained_seconds=last.elapsed_seconds if last else None,
        recipe=record.config.model_dump(mode="json", include=set(RECIPE_KEYS)),
        rows=record.info.data["eval"].sources if "eval" in record.info.data else (),
        num_rows=best.num_rows if best else None,
        signature=best.signature_of(metric) if best else None,
        interval=best.intervals.get(metric) if best else None,
    )


def rank_runs(runs: Iterable[Compared]) -> list[Compared]:
    """Runs by their best score, the best first and those without a score last; as given where `why_unranked` says why."""

    def order(run: Compared) -> float:
        if run.best is None:
            return math.inf
        return run.best if is_lower_better(run.metric) else -run.best

    found = list(runs)
    return found if why_unranked(found) else sorted(found, key=order)


def differing_keys(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted keys whose values differ. If only some recipes have a list or section, its own key represents all keys in it."""
    found = {key for other in recipes[1:] for key, _, _ in differences(recipes[0], other)}
    return sorted(key for key in found if not any(key.startswith(f"{whole}.") for whole in found))


def why_unranked(runs: Sequence[Compared]) -> str | None:
    """Why no run is better than another, in a sentence; None if their scores can be compared."""
    metrics = sorted({run.metric for run in runs})
    if len(metrics) > 1:
        return f"not ranked: the runs choose their best model by different metrics ({', '.join(metrics)})"
    if different := _different_rows(runs):
        return f"not ranked: scores of different evaluation rows cannot be compared ({different})"
    signatures = sorted({run.signature or "no signature" for run in runs})
    if len(signatures) > 1:
        return f"not ranked: {metrics[0]} was computed in different ways ({'; '.join(signatures)})"
    return None


def _different_rows(runs: Sequence[Compared]) -> str | None:
    """In what the evaluation rows differ; the content decides where it is recorded, not the name of a file."""
    keys = [key for key in differing_keys([run.recipe for run in runs]) if f"{key}.".startswith("data.eval.")]
    contents = {run.rows for run in runs}
    same_content = len(contents) == 1 and () not in contents
    if not same_content and (keys or len(contents - {()}) > 1):
        return ", ".join(keys) or "the content of data.eval"
    if len({value_at(run.recipe, key=NUM_ROWS_KEY) for run in runs}) > 1:
        return NUM_ROWS_KEY
    counts = sorted({run.num_rows for run in runs if run.num_rows is not None})
    return f"{' and '.join(f'{count:,}' for count in counts)} rows" if len(counts) > 1 else None


def value_at(recipe: Any, *, key: str) -> Any:
    """The value of a dotted key, None if the recipe lacks it."""
    for part in key.split("."):
        if isinstance(recipe, Mapping):
            recipe = recipe.get(part)
        elif isinstance(recipe, Sequence) and not isinstance(recipe, str) and int(part) < len(recipe):
            recipe = recipe[int(part)]
        else:
            return None
    return recipe


def text_table(runs: Sequence[Compared], *, width: int) -> str:
    """The table for a terminal of `width` characters: a line per run, or numbered runs and a paragraph per recipe key."""
    header, rows = _cells(runs)
    shown = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
    whole = aligned([header, *shown])
    if max(map(len, whole.splitlines())) <= width:
        return whole
    numbers = [str(number) for number in range(1, len(shown) + 1)]
    fixed = [[number, *row[1:NUM_FIXED]] for number, row in zip(numbers, shown, strict=True)]
    paragraphs = [_wrapped(["runs", *numbers], ["", *(row[0] for row in shown)], width=width)]
    paragraphs.append(aligned([["run", *header[1:NUM_FIXED]], *fixed]))
    for column, key in enumerate(header[NUM_FIXED:], start=NUM_FIXED):
        paragraphs.append(_wrapped([key, *numbers], ["", *(row[column] for row in shown)], width=width))
    return "\n\n".join(paragraphs)


def _wrapped(labels: Sequence[str], texts: Sequence[str], *, width: int) -> str:
    """A heading, and under it each label with its text, which may take several lines."""
    indent = " " * (4 + max(map(len, labels[1:])))
    lines = [labels[0]]
    for label, text in zip(labels[1:], texts[1:], strict=True):
        start = f"  {label:<{len(indent) - 4}}  "
        lines.append(textwrap.fill(text or " ", width=width, initial_indent=start, subsequent_indent=indent))
    return "\n".join(lines)


def markdown_table(runs: Sequence[Compared]) -> str:
    """The table as Markdown."""
    header, rows = _cells(runs)
    return markdown.table(header, rows)


def as_json(runs: Sequence[Compared]) -> list[dict[str, Any]]:
    """The rows as JSON values. `recipe` has only the keys that differ; a number that is not finite is None."""
    keys = differing_keys([run.recipe for run in runs])
    return [
        {name: _finite(value) for name, value in asdict(run).items()}
        | {"recipe": {key: value_at(run.recipe, key=key) for key in keys}}
        for run in rank_runs(runs)
    ]


def _cells(runs: Sequence[Compared]) -> tuple[list[str], list[list[str]]]:
    keys = differing_keys([run.recipe for run in runs])
    metrics = {run.metric for run in runs}
    one_metric = next(iter(metrics)) if len(metrics) == 1 else None
    best = f"best {one_metric}" if one_metric else "best score"
    header = ["run", "status", "step", best, "at step", "last training loss", "seconds trained"]
    assert len(header) == NUM_FIXED
    rows = [
        [
            # the folder and not the name, because all runs of a sweep have the same name
            printable(run.run),
            run.state,
            f"{run.step} of {run.total_steps}" if run.total_steps else str(run.step),
            _best(run) if one_metric or run.best is None else f"{run.metric} {_best(run)}",
            _text(run.best_step),
            _number(run.loss),
            MISSING if run.trained_seconds is None else f"{run.trained_seconds:.1f}",
            *(_text(value_at(run.recipe, key=key)) for key in keys),
        ]
        for run in rank_runs(runs)
    ]
    return [*header, *keys], rows


def _best(run: Compared) -> str:
    return _number(run.best) if run.interval is None else f"{_number(run.best)} ± {_number(run.interval)}"


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def _text(value: Any) -> str:
    if value is None:
        return MISSING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
