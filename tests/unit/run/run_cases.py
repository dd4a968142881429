"""The one rank of a run on the CPU, its configuration, and a run folder with rows."""

from pathlib import Path
from typing import Any

import torch

from dstrain.cluster.environment import read_process_info
from dstrain.cluster.process_group import Ranks
from dstrain.config.load import dump_config
from dstrain.config.schema import RunConfig
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import write_run_info
from dstrain.run_folder.rows import append_row
from tests.distributed.steps import change
from tests.unit.reporting.reporting_cases import translation_config

CPU = Ranks(process=read_process_info({}), device=torch.device("cpu"), group=None)


def build_config(**changes: Any) -> RunConfig:
    """A recipe whose data need not exist; changes are dotted with `__`."""
    scratch = {"model": {"scratch": {"architecture": "m2m100"}}, "precision": "fp32"}
    return change(translation_config().model_dump(mode="json") | scratch, changes)


def write_run(path: Path, *, last_event: str | None = None, bleu: dict[int, float] | None = None) -> RunFolder:
    """A run folder with an evaluation per step in `bleu`, and a last event at step 30."""
    folder = RunFolder(path)
    path.mkdir(exist_ok=True)
    folder.config.write_text(dump_config(translation_config(output_dir=str(path))), encoding="utf-8")
    write_run_info(path, {"command": "python launch/train.py", "world_size": 1})
    rows: list[dict[str, Any]] = [{"kind": "event", "event": "start", "step": 0}]
    for step, score in (bleu or {}).items():
        rows.append({"kind": "eval", "step": step, "epoch": 1.0, "train_loss": 1.0, "scores": {"bleu": score}})
    if last_event is not None:
        rows.append({"kind": "event", "event": last_event, "step": 30})
    for row in rows:
        append_row(folder.metrics, row)
    return folder
