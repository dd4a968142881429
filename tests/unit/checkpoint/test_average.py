"""The mean of checkpoints: against a plain mean, of one to the bit, and which inputs are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic_core import to_json
from torch import nn

from dstrain.checkpoint.average import average_weights, find_inputs, list_steps
from dstrain.checkpoint.manifest import CheckpointError
from dstrain.checkpoint.parts import write_tensors
from dstrain.checkpoint.state import STATE_FILE, RunState
from dstrain.checkpoint.store import CheckpointName, begin_save, commit_save
from dstrain.errors import UserError
from tests.unit.checkpoint.checkpoint_cases import RECIPE, break_file, build_manifest, ignore


def save_weights(run: Path, *, step: int, recipe: dict[str, Any] | None = None, **state: Any) -> nn.Linear:
    """A checkpoint of a random layer, in parts of two ranks; returns the layer."""
    torch.manual_seed(step)
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight[0, 0] = -0.0
    parts = begin_save(run / "checkpoints", name=CheckpointName(step, 1))
    flat = layer.weight.detach().flatten()
    for rank, tensors in enumerate(
        [
            {"master/weight@0": flat[:4].clone()},
            {"master/weight@4": flat[4:].clone(), "master/bias@0": layer.bias.detach()},
        ]
    ):
        write_tensors(tensors, path=parts / f"weights-{rank:05d}.safetensors", on_stage=ignore)
    values = {"epoch": 0, "step_in_epoch": step, "cut": {}, "data": {"train": "a"}} | state
    (parts / STATE_FILE).write_bytes(to_json(RunState(step=step, **values)))
    commit_save(parts, manifest=build_manifest(parts, step=step, recipe=recipe), on_stage=ignore)
    return layer


def test_the_mean_is_that_of_the_weights_summed_in_fp64(tmp_path: Path) -> None:
    layers = [save_weights(tmp_path, step=step) for step in (4, 8, 12)]
    mean = nn.Linear(3, 2)
    average_weights(find_inputs(tmp_path, steps=[12, 4, 8]), module=mean)
    for name in ("weight", "bias"):
        exact = sum(getattr(layer, name).detach().double() for layer in layers) / 3
        assert torch.equal(getattr(mean, name), exact.float())  # type: ignore[union-attr]


def test_the_mean_of_one_checkpoint_is_its_weights_to_the_bit(tmp_path: Path) -> None:
    layer, mean = save_weights(tmp_path, step=4), nn.Linear(3, 2)
    average_weights(find_inputs(tmp_path, steps=[4]), module=mean)
    assert mean.weight.detach().numpy().tobytes() == layer.weight.detach().numpy().tobytes()  # -0.0 too
    assert torch.equal(mean.bias, layer.bias)


def test_steps_are_listed_with_the_newest_first_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    for step in (4, 12, 8):
        save_weights(tmp_path, step=step)
    assert list_steps(tmp_path) == [12, 8, 4]
    assert [path.name[:13] for path in find_inputs(tmp_path, steps=[8, 4, 8])] == ["step-00000004", "step-00000008"]
    with pytest.raises(UserError, match=r"no valid checkpoint of step 5 \(steps there: 12, 8, 4\)"):
        find_inputs(tmp_path, steps=[4, 5])


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    for step in (4, 8):
        save_weights(tmp_path, step=step)
    break_file(next((tmp_path / "checkpoints").glob("step-00000004*")))
    with pytest.raises(UserError, match="does not match the manifest's sha256"):
        find_inputs(tmp_path, steps=[4, 8])


def test_other_recipes_and_data_among_the_inputs_are_refused_by_name(tmp_path: Path) -> None:
    changed = RECIPE | {"training": {"learning_rate": 2e-5, "betas": [0.9, 0.999]}}
    save_weights(tmp_path, step=4, recipe=changed)
    save_weights(tmp_path, step=8, data={"train": "b"})
    save_weights(tmp_path, step=12)
    with pytest.raises(UserError, match=r"step-00000004.*training\.learning_rate was 2e-05, and then 1e-05"):
        find_inputs(tmp_path, steps=[4, 12])
    with pytest.raises(UserError, match=r"step-00000008.*data\.train was 'b', and then 'a'"):
        find_inputs(tmp_path, steps=[8, 12])


def test_adapters_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path, step=4, recipe=RECIPE | {"model": {"name": "x", "adapter": {"rank": 8}}})
    with pytest.raises(UserError, match="the mean of products is not the product of means"):
        find_inputs(tmp_path, steps=[4])


def test_a_checkpoint_of_another_model_or_base_is_refused(tmp_path: Path) -> None:
    save_weights(tmp_path, step=4)
    save_weights(tmp_path, step=8, base="b" * 64)
    with pytest.raises(CheckpointError, match="another model"):
        average_weights(find_inputs(tmp_path, steps=[4]), module=nn.Linear(4, 2))
    with pytest.raises(CheckpointError, match="have changed since"):
        average_weights(find_inputs(tmp_path, steps=[4, 8]), module=nn.Linear(3, 2), base="c" * 64)
