"""Complete training runs on small real text, started in processes that have imported everything already."""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

from dstrain.cluster.environment import ProcessInfo
from dstrain.config.schema import RunConfig
from dstrain.tasks.demo.rows import DemoRow, demo_rows
from tests.distributed.ranks import start_ranks
from tests.distributed.steps import change

NUM_TRAIN, NUM_EVAL = 120, 21


@cache
def first_rows(task: Literal["translation", "parsing"], *, split: str, number: int) -> tuple[DemoRow, ...]:
    """The first rows of a demo's split, of which all must be drawn, in a second."""
    return tuple(demo_rows(task, split=split)[:number])


def write_pairs(folder: Path) -> tuple[str, str]:
    """Training and evaluation pairs of the translation demo as TSV files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for split, number in (("train", NUM_TRAIN), ("eval", NUM_EVAL)):
        rows = first_rows("translation", split=split, number=number)
        path = folder / f"{split}.tsv"
        path.write_text("".join(f"{row.source}\t{row.target}\n" for row in rows))
        paths.append(str(path))
    return paths[0], paths[1]


def build_run(folder: Path, **changes: Any) -> RunConfig:
    """A tiny translation run in `folder`; changes are dotted with `__`."""
    train, evaluation = write_pairs(folder)
    values: dict[str, Any] = {
        "name": "tiny",
        "output_dir": str(folder / "run"),
        "model": {
            "scratch": {"architecture": "m2m100", "vocabulary_size": 600, "hidden_size": 32, "feed_forward_size": 64},
            "dropout": 0.1,
        },
        "task": {"kind": "translation", "source_language": "ko", "target_language": "en"},
        "data": {"train": [{"path": train}], "eval": [{"path": evaluation, "name": "dev"}]},
        "training": {"batch_size": 16, "max_steps": 12, "learning_rate": 1e-3, "warmup_steps": 2},
        "evaluation": {"every_steps": 5, "max_new_tokens": 12},
        "machine": {"min_micro_batches": 3, "cache_dir": str(folder / "cache")},
        "checkpoint": {"every_steps": 4, "every_minutes": 0},  # at the same steps on a slow machine as well
        "logging": {"every_steps": 1, "tensorboard": False},
    }
    return change(values, changes)


def train(
    config: RunConfig,
    *,
    world_size: int = 1,
    stop_after: int | None = None,
    allowed: Sequence[str] = (),
    allocation_end: float | None = None,
) -> list[int]:
    """Exit codes of the ranks; with `stop_after` rank 0 sends itself SIGTERM once that step was logged."""
    values = config.model_dump(mode="json")
    return start_ranks(_train, values, stop_after, allowed, allocation_end, world_size=world_size)


def read_rows(config: RunConfig, *, kind: str) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl; of several with the same step, the last."""
    lines = (Path(config.run_dir) / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["kind"] == kind]
    if kind == "event":
        return rows
    return list({row["step"]: row for row in rows}.values())


def _train(
    process: ProcessInfo,
    values: dict[str, Any],
    stop_after: int | None,
    allowed: Sequence[str],
    allocation_end: float | None,
) -> int:
    from dstrain.run.launch import Launch
    from dstrain.run.training import run

    logging.getLogger("dstrain").setLevel(logging.WARNING)
    config = RunConfig.model_validate(values)
    if stop_after is not None and process.rank == 0:
        threading.Thread(target=_stop_later, args=(Path(config.run_dir), stop_after), daemon=True).start()
    launch = Launch(process, "python -m dstrain.train", allow_changed=tuple(allowed), allocation_end=allocation_end)
    return run(config, launch=launch)


def _stop_later(run_dir: Path, step: int) -> None:
    metrics = run_dir / "metrics.jsonl"
    while not metrics.exists() or f'"kind": "train", "step": {step},' not in metrics.read_text():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
