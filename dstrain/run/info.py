"""The content of run.json: machine, versions, data, model, how steps are cut."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dstrain.cluster.process_group import Ranks
from dstrain.config.schema import RunConfig
from dstrain.config.section import Section
from dstrain.data.plan import Plan, Position
from dstrain.models.compact import compact_embeddings
from dstrain.models.new_rows import count_new_rows
from dstrain.models.partial import count_trained
from dstrain.run_folder.base import read_base
from dstrain.run_folder.layout import RunFolder

PACKAGES = ("dstrain", "torch", "transformers", "deepspeed", "datasets", "tokenizers", "sacrebleu")
NUM_SAMPLED_STEPS = 200
"""Steps at the beginning of the first epoch whose micro-batches are counted."""


def list_versions(config: Section) -> dict[str, str]:
    """Versions of Python and of the packages that affect the results of what is configured, such as a run."""
    has_adapter = isinstance(config, RunConfig) and config.model.adapter is not None
    has_peft = has_adapter and find_spec("peft") is not None  # without it the run is refused later
    packages = (*PACKAGES, "peft") if has_peft else PACKAGES
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def build_run_info(
    config: RunConfig,
    *,
    ranks: Ranks,
    data: dict[str, dict[str, Any]],
    vocabulary: dict[str, int],
    model: nn.Module,
    is_experiment: bool,
    num_exported: int,
    plan: Plan,
    total_steps: int,
    warnings: list[str],
    command: Sequence[str],
) -> dict[str, Any]:
    """The content of run.json; `data` holds the reports of the token sets by split, `vocabulary` how many ids are trained.

    `num_exported` counts the parameters of the models that are exported.
    """
    scratch = config.model.scratch
    per_epoch = plan.num_steps(plan.whole_epoch)
    return {
        "versions": list_versions(config),
        "command": list(command),
        "world_size": ranks.world_size,
        "device": torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else "cpu",
        "launcher": ranks.process.launcher,
        "data": data,
        "model": {
            "base": config.model.name if scratch is None else f"scratch: {scratch.architecture}",
            "from_run": None if config.model.from_run is None else _describe_base(config),
            "origin": _origin(config.model.name),
            "architecture": type(model).__name__,
            "passed_self_test": True if is_experiment else None,  # no run of an experiment starts without
            "num_parameters": count_parameters(model),
            "num_exported_parameters": num_exported,
            "num_trained_parameters": count_trained(model) if config.model.trains_part else None,
            "new_tokens": count_new_rows(model) if config.model.trains_part else None,
            "trained_embedding_rows": _count_trained_rows(model),
            **vocabulary,
        },
        "total_steps": total_steps,
        "steps_per_epoch": per_epoch,
        "micro_batches": count_micro_batches(plan, num_steps=min(NUM_SAMPLED_STEPS, per_epoch)),
        "warnings": warnings,
    }


def count_parameters(model: nn.Module) -> int:
    """The parameters of a model, those of a compact embedding with all its rows."""
    # under ZeRO-3 numel() counts only this rank's part
    count = sum(getattr(each, "ds_numel", each.numel()) for each in model.parameters())
    return count + sum(
        (each.num_embeddings - len(each.ids)) * each.embedding_dim for each in compact_embeddings(model).values()
    )


def _count_trained_rows(model: nn.Module) -> int | None:
    return next((len(each.ids) for each in compact_embeddings(model).values()), None)


def count_micro_batches(plan: Plan, *, num_steps: int) -> dict[str, Any]:
    """Micro-batches per step, and the largest number of rows in one, over the first `num_steps` steps of an epoch."""
    steps = [plan.step(Position(plan.whole_epoch, step)).micro_batches for step in range(num_steps)]
    counts = [len(parts) for parts in steps]
    return {
        "min": min(counts),
        "max": max(counts),
        "mean": float(np.mean(counts)),
        "num_steps": num_steps,
        "largest_rows": max(len(part) for parts in steps for part in parts),
    }


def _describe_base(config: RunConfig) -> dict[str, Any] | None:
    base = read_base(RunFolder(Path(config.run_dir)))
    return None if base is None else asdict(base)


def _origin(name: str | None) -> str:
    if name is None:
        return "scratch"
    return "folder" if os.path.isdir(name) else "hub"
