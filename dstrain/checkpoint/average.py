"""The mean of the weights of several checkpoints of a run, parameter by parameter. Knows no engine and no files of models."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import nn

from dstrain.checkpoint.manifest import load_manifest
from dstrain.checkpoint.resume import TrainingInputs, find_changes
from dstrain.checkpoint.saved_shards import MASTER, open_shards
from dstrain.checkpoint.state import check_base, find_rows, load_state
from dstrain.checkpoint.store import current_dirs, find_checkpoint, parse_checkpoint_name
from dstrain.engine.shards import trained_parameters
from dstrain.errors import UserError
from dstrain.run_folder.claims import read_claims
from dstrain.run_folder.layout import RunFolder


def list_steps(run_dir: Path) -> list[int]:
    """The steps of which a run has checkpoints, by their names: the newest first."""
    found = current_dirs(RunFolder(run_dir).checkpoints, claims=read_claims(run_dir))
    names = (parse_checkpoint_name(path) for path in found)
    return list(dict.fromkeys(name.step for name in names if name is not None))


def find_inputs(run_dir: Path, *, steps: Sequence[int]) -> list[Path]:
    """The checkpoints of these steps, verified by their manifests, the oldest first.

    Raises:
        UserError: one is missing or not valid, or their mean is of no use: they are of different recipes or data, or hold
            adapters.
    """
    directories = [find_checkpoint(run_dir, step=step) for step in sorted(set(steps))]
    manifest, state = load_manifest(directories[-1]), load_state(directories[-1])
    model = manifest.recipe.get("model") or {}
    if model.get("adapter") is not None:
        raise UserError(
            f"{run_dir}: its checkpoints hold adapters, and the mean of products is not the product of means: average a run "
            "without model.adapter, or take its best model"
        )
    newest = TrainingInputs(manifest.recipe, state.data, {}, state.cut)
    for directory in directories[:-1]:
        change = next(find_changes(load_manifest(directory), state=load_state(directory), inputs=newest), None)
        if change is not None:
            raise UserError(
                f"{directory} was trained otherwise than {directories[-1].name}, so that they are not averaged: {change.field} "
                f"was {change.old!r}, and then {change.new!r}: choose later steps with --steps"
            )
    return directories


def average_weights(directories: Sequence[Path], *, module: nn.Module, base: str | None = None) -> None:
    """Copy the mean of checkpoints' fp32 masters, summed in fp64, into a loss module whose weights are not sharded.

    Of one checkpoint that is its weights bit for bit. What was not trained stays as it is; `base` is its hash, if the recipe
    freezes a part of the model.

    Raises:
        CheckpointError: a checkpoint is of another model.
    """
    states = {directory: load_state(directory) for directory in directories}
    for directory, state in states.items():
        check_base(state, base=base, directory=directory)
    all_rows = [find_rows(state, module=module, directory=directory) for directory, state in states.items()]
    with ExitStack() as stack, torch.no_grad():
        opened = [stack.enter_context(open_shards(directory)) for directory in directories]
        for name, parameter in trained_parameters(module):
            total = None
            for saved, rows in zip(opened, all_rows, strict=True):
                found = rows.get(name)
                saved.check_numel(name, numel=parameter.numel() if found is None else found.saved_numel)
                flat = parameter.detach().to("cpu", torch.float32, copy=True).flatten()
                saved.fill(flat, kind=MASTER, name=name, start=0, rows=found)
                total = flat.double() if total is None else total.add_(flat)
            assert total is not None, "there is at least one checkpoint"
            parameter.copy_((total / len(directories)).to(torch.float32).view_as(parameter))
