"""The table of `dstrain compare`: one row per run, with its best score and the recipe keys in which runs differ. Pure."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dstrain.config.differences import differences
from dstrain.config.schema import RECIPE_KEYS
from dstrain.reporting import markdown
from dstrain.reporting.terminal import aligned, printable
from dstrain.run_folder.record import RunRecord

MISSING = "-"
NUM_FIXED = 7
"""Number of columns before those of the recipe keys."""
MAX_VALUE = 40
"""Most characters of a recipe value in a table for a terminal."""


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
    )


def rank_runs(runs: Iterable[Compared]) -> list[Compared]:
    """Runs by their best score, the best first. Runs with the same metric are grouped; those without a score end the group."""

    def order(run: Compared) -> tuple[str, float]:
        if run.best is None:
            return run.metric, math.inf
        return run.metric, run.best if run.metric == "loss" else -run.best

    return sorted(runs, key=order)


def differing_keys(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted keys whose values differ. If only some recipes have a list or section, its own key represents all keys in it."""
    found = {key for other in recipes[1:] for key, _, _ in differences(recipes[0], other)}
    return sorted(key for key in found if not any(key.startswith(f"{whole}.") for whole in found))


def describe_other_rows(runs: Sequence[Compared]) -> str | None:
    """A warning if the recipes differ in their evaluation rows, None if they do not."""
    keys = [key for key in differing_keys([run.recipe for run in runs]) if f"{key}.".startswith("data.eval.")]
    return f"the runs differ in {', '.join(keys)}: scores of different rows cannot be compared" if keys else None


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


def text_table(runs: Sequence[Compared]) -> str:
    """The table for a terminal, one line per run."""
    header, rows = _cells(runs)
    return aligned([header, *([*row[:NUM_FIXED], *map(_short, row[NUM_FIXED:])] for row in rows)])


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
    header = ["run", "status", "step", best, "at step", "loss", "seconds trained"]
    assert len(header) == NUM_FIXED
    rows = [
        [
            # the folder and not the name, because all runs of a sweep have the same name
            printable(run.run),
            run.state,
            f"{run.step} of {run.total_steps}" if run.total_steps else str(run.step),
            _number(run.best) if one_metric or run.best is None else f"{run.metric} {_number(run.best)}",
            _text(run.best_step),
            _number(run.loss),
            MISSING if run.trained_seconds is None else f"{run.trained_seconds:.1f}",
            *(_text(value_at(run.recipe, key=key)) for key in keys),
        ]
        for run in rank_runs(runs)
    ]
    return [*header, *keys], rows


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.4f}"


def _text(value: Any) -> str:
    if value is None:
        return MISSING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short(cell: str) -> str:
    line = printable(cell).replace("\n", " ")
    return line if len(line) <= MAX_VALUE else f"{line[: MAX_VALUE - 1]}…"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
