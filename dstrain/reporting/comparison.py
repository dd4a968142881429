"""Runs side by side: their best scores, and the recipe keys in which they differ. Pure functions of records."""

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
"""Columns before those of the recipe's keys."""
MAX_VALUE = 40
"""Characters of a recipe's value in a table for a terminal."""


@dataclass(frozen=True)
class Compared:
    """What the table says of one run."""

    run: str
    """Its folder, as it was given."""
    name: str
    state: str
    """As `dstrain status` calls it."""
    step: int
    total_steps: int | None
    metric: str
    """Which score chooses the best."""
    best: float | None
    best_step: int | None
    loss: float | None
    """Of the last training row."""
    trained_seconds: float | None
    recipe: Mapping[str, Any]


def describe_run(record: RunRecord, *, run: str, state: str) -> Compared:
    """A run's part of the table."""
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
    """Runs by their best score, the best first; runs of one metric stand together, those without a score at its end."""

    def order(run: Compared) -> tuple[str, float]:
        if run.best is None:
            return run.metric, math.inf
        return run.metric, run.best if run.metric == "loss" else -run.best

    return sorted(runs, key=order)


def differing_keys(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted recipe keys in which not all are equal; of a list or section that only some have, the key of the whole."""
    found = {key for other in recipes[1:] for key, _, _ in differences(recipes[0], other)}
    return sorted(key for key in found if not any(key.startswith(f"{whole}.") for whole in found))


def value_at(recipe: Any, *, key: str) -> Any:
    """The value of a dotted key, None where there is none."""
    for part in key.split("."):
        if isinstance(recipe, Mapping):
            recipe = recipe.get(part)
        elif isinstance(recipe, Sequence) and not isinstance(recipe, str) and int(part) < len(recipe):
            recipe = recipe[int(part)]
        else:
            return None
    return recipe


def text_table(runs: Sequence[Compared]) -> str:
    """The table for a terminal, a line a run."""
    header, rows = _cells(runs)
    return aligned([header, *([*row[:NUM_FIXED], *map(_short, row[NUM_FIXED:])] for row in rows)])


def markdown_table(runs: Sequence[Compared]) -> str:
    """The table for a page."""
    header, rows = _cells(runs)
    return markdown.table(header, rows)


def as_json(runs: Sequence[Compared]) -> list[dict[str, Any]]:
    """The rows as JSON values, `recipe` cut down to what differs; null for what is no finite number."""
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
            # a sweep gives all its runs one name
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
