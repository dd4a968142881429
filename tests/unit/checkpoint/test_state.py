"""The state of a run in files: shards of parameters written by any number of ranks, and the values beside them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic_core import to_json
from torch import nn

from dstrain.checkpoint.manifest import CheckpointError
from dstrain.checkpoint.state import STATE_FILE, EpochPart, RunState, load_state, load_weights
from tests.unit.checkpoint.checkpoint_cases import part, write_shards


def test_numbers_that_are_not_finite_survive_in_the_state(tmp_path: Path) -> None:
    state = RunState(
        step=40, epoch=2, step_in_epoch=5, cut={}, data={}, loss_scaler={"low": float("-inf"), "lost": float("nan")}
    )
    (tmp_path / STATE_FILE).write_bytes(to_json(asdict(state), inf_nan_mode="constants"))
    scaler = load_state(tmp_path).loss_scaler
    assert scaler["low"] == float("-inf")
    assert scaler["lost"] != scaler["lost"]


def write_state(folder: Path, **values: Any) -> None:
    """The state beside the tensors; before `write_shards`, which seals the folder."""
    state = RunState(**{"step": 4, "epoch": 0, "step_in_epoch": 1, "cut": {}, "data": {}, **values})
    (folder / STATE_FILE).write_bytes(to_json(state))


def test_weights_are_loaded_in_the_shape_of_the_parameter(tmp_path: Path) -> None:
    write_state(tmp_path)
    write_shards(
        tmp_path, {"master/weight@0": part(0, 4), "master/bias@0": part(8, 10)}, {"master/weight@4": part(4, 6)}
    )
    module = nn.Linear(3, 2)
    load_weights(tmp_path, module=module)
    assert module.weight.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert module.bias.tolist() == [8.0, 9.0]


@pytest.mark.parametrize(
    ("width", "message"), [(4, "elements 6 to 8 of parameter weight"), (2, "6 elements of parameter weight")]
)
def test_weights_of_another_size_are_refused(width: int, message: str, tmp_path: Path) -> None:
    write_state(tmp_path)
    write_shards(tmp_path, {"master/weight@0": part(0, 6), "master/bias@0": part(8, 10)})
    with pytest.raises(CheckpointError, match=message):
        load_weights(tmp_path, module=nn.Linear(width, 2))


def test_rows_that_were_not_saved_stay_as_they_are(tmp_path: Path) -> None:
    write_state(tmp_path, rows={"weight": (0, 3)})
    write_shards(tmp_path, {"master/weight@0": part(0, 3)}, {"master/weight@3": part(3, 4)})
    module = nn.Embedding(5, 2)
    before = module.weight.detach().clone()
    load_weights(tmp_path, module=module)
    assert module.weight[[0, 3]].tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert torch.equal(module.weight[[1, 2, 4]], before[[1, 2, 4]])


@pytest.mark.parametrize(
    "rows",
    [{"weight": (0, 5)}, {"weight": (3, 0)}, {"weight": (0, 0)}, {"weight": ()}, {"other": (0, 3)}, {"bias": (0, 3)}],
)
def test_rows_that_the_model_cannot_have_are_refused(rows: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    write_state(tmp_path, rows=rows)
    write_shards(tmp_path, {"master/weight@0": part(0, 4), "master/bias@0": part(0, 2)})
    module = nn.Embedding(5, 2)
    module.bias = nn.Parameter(torch.zeros(2))
    with pytest.raises(CheckpointError, match=r"it holds some rows of parameter .* another model"):
        load_weights(tmp_path, module=module)


def test_fewer_rows_than_the_state_names_are_refused(tmp_path: Path) -> None:
    write_state(tmp_path, rows={"weight": (0, 1, 3)})
    write_shards(tmp_path, {"master/weight@0": part(0, 4)})
    with pytest.raises(CheckpointError, match="no master for elements"):
        load_weights(tmp_path, module=nn.Embedding(5, 2))


def test_weights_on_another_base_are_refused_and_the_model_is_named(tmp_path: Path) -> None:
    write_state(tmp_path, base="b" * 64)
    write_shards(tmp_path, {"master/weight@0": part(0, 6)})
    module = nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    load_weights(tmp_path, module=module, base="b" * 64)
    for other in (None, "c" * 64):
        with pytest.raises(CheckpointError, match=r"the files of model\.name None have changed since"):
            load_weights(tmp_path, module=module, base=other)


def test_a_state_that_holds_every_weight_fits_any_base(tmp_path: Path) -> None:
    write_state(tmp_path)
    write_shards(tmp_path, {"master/weight@0": part(0, 6), "master/bias@0": part(8, 10)})
    load_weights(tmp_path, module=nn.Linear(3, 2), base="c" * 64)


def test_how_an_epoch_was_begun_is_kept_and_a_state_from_before_has_none(tmp_path: Path) -> None:
    parts = (EpochPart(seed=1, batch_size=16, batch_unit="sequences", num_steps=3),)
    state = asdict(RunState(step=4, epoch=0, step_in_epoch=1, cut={}, data={}, epoch_parts=parts))
    (tmp_path / STATE_FILE).write_bytes(to_json(state))
    assert load_state(tmp_path).epoch_parts == parts
    del state["epoch_parts"]
    (tmp_path / STATE_FILE).write_bytes(to_json(state))
    assert load_state(tmp_path).epoch_parts == ()
    state["epoch_parts"] = [{"seed": 1, "batch_size": 0, "batch_unit": "sequences", "num_steps": 3}]
    (tmp_path / STATE_FILE).write_bytes(to_json(state))
    with pytest.raises(CheckpointError, match="batch_size"):
        load_state(tmp_path)
