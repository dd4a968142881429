"""A finished run for commands to read, and modules that stand in for those a command imports."""

import sys
import types
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from dstrain.config.load import dump_config, load_config
from dstrain.run_folder.record import write_run_info
from dstrain.run_folder.rows import EvalRow, EventRow, TrainRow, append_row


def install_module(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    module = types.ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)


def make_run(
    folder: Path, *overrides: str, bleu: list[float] | None = None, name: str = "", loss: float = 1.25, **scores: float
) -> str:
    """A finished run of the debug recipe with an evaluation every 10 steps."""
    config = load_config("debug", overrides=[f"name={name or folder.name}", *overrides])
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_config(config))
    write_run_info(folder, {"total_steps": 40, "world_size": 1})
    rows: list[tuple[str, Any]] = [
        ("event", EventRow("start", 0)),
        ("train", TrainRow(35, 1.0, loss, elapsed_seconds=61.7)),
    ]
    for number, value in enumerate([12.0] if bleu is None else bleu, start=1):
        rows.append(
            ("eval", EvalRow(step=10 * number, epoch=1.0, scores={"bleu": value, "loss": 9.0 - number, **scores}))
        )
    rows.append(("event", EventRow("finish", 40)))
    for kind, row in rows:
        append_row(folder / "metrics.jsonl", {"kind": kind, **asdict(row)})
    return str(folder)
