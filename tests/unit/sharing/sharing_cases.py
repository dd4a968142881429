"""A finished run with a small model folder, and what a folder holds."""

import json
from pathlib import Path
from typing import Any

from dstrain.run_folder.rows import EventRow, append_row
from tests.unit.cli.cli_cases import make_run

STEP = 10
WEIGHTS = b"\x08\0\0\0\0\0\0\0{}      " + bytes(range(256)) * 20


def make_shared_run(folder: Path, *overrides: str, status: str = "finish", **scores: Any) -> Path:
    """A run with `best/`, the model of step 10; with the status `resume` it has not finished."""
    make_run(folder, *overrides, **scores)
    if status != "finish":
        append_row(folder / "metrics.jsonl", {"kind": "event", **vars_of(EventRow(status, 40))})  # type: ignore[arg-type]
    make_model(folder / "best")
    return folder


def vars_of(row: EventRow) -> dict[str, Any]:
    return {"event": row.event, "step": row.step}


def make_model(folder: Path, *, step: int = STEP) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "t5"}\n')
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    (folder / "spiece.model").write_bytes(b"\n\x0e\n\x05<unk>\0pieces")
    (folder / "tokenizer_config.json").write_text('{"pad_token": "<pad>", "tokenizer_class": "T5Tokenizer"}\n')
    (folder / "training_step.json").write_text(json.dumps({"step": step}) + "\n")
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file in a folder with its content, by its name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
