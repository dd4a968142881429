"""run.json: what it says of machine, model and micro-batches, and that it can be read back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from dstrain.data.cuts import Cut
from dstrain.data.plan import Plan
from dstrain.models.compact import CompactEmbedding
from dstrain.run.info import PACKAGES, build_run_info, count_micro_batches, list_versions
from dstrain.run_folder.record import read_run_info, write_run_info
from tests.unit.run.run_cases import CPU, build_config


def build_plan(*, size: int | None = 4) -> Plan:
    """20 rows of one length in steps of 8: the last step of an epoch has 4."""
    lengths = np.full(20, 5, dtype=np.int32)
    return Plan(lengths, lengths, fingerprint="f", seed=0, batch_size=8, batch_unit="sequences", cut=Cut(1000, size))


def test_micro_batches_are_counted_over_the_first_steps() -> None:
    assert count_micro_batches(build_plan(), num_steps=3) == {
        "min": 1,
        "max": 2,
        "mean": pytest.approx(5 / 3),
        "num_steps": 3,
        "largest_rows": 4,
    }
    assert count_micro_batches(build_plan(size=8), num_steps=1)["largest_rows"] == 8


def test_versions_are_those_of_python_and_of_what_decides_the_results() -> None:
    versions = list_versions(build_config())
    assert set(versions) == {"python", *PACKAGES}
    assert all(versions.values())
    assert set(list_versions(build_config(model={"name": "x", "adapter": {}}))) == {*versions, "peft"}


def build_info(trained: nn.Module, vocabulary: dict[str, int] | None = None, **changes: Any) -> dict[str, Any]:
    return build_run_info(
        build_config(**changes),
        ranks=CPU,
        data={"train": {"rows_read": 30, "rows": 20}, "eval": {"rows_read": 2, "rows": 2}},
        vocabulary=vocabulary or {},
        model=trained,
        is_experiment=False,
        num_exported=1000,
        plan=build_plan(),
        total_steps=12,
        warnings=["some ranks are idle"],
        command=("python", "launch/train.py"),
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_run_info(tmp_path, build_info(nn.Linear(3, 2)))
    info = read_run_info(tmp_path)
    assert (info.world_size, info.device, info.launcher, info.command) == (
        1,
        "cpu",
        "python",
        ("python", "launch/train.py"),
    )
    assert (info.total_steps, info.steps_per_epoch, info.micro_batches.num_steps) == (12, 3, 3)
    assert (info.model.architecture, info.model.num_parameters, info.model.origin) == ("Linear", 8, "scratch")
    assert info.model.base == "scratch: m2m100"
    assert info.model.trained_ids is None
    write_run_info(tmp_path, build_info(nn.Linear(3, 2), {"trained_ids": 5, "num_ids": 9}))
    model = read_run_info(tmp_path).model
    assert (model.trained_ids, model.num_ids, model.num_exported_parameters) == (5, 9, 1000)
    assert (info.data["train"].rows_read, info.warnings) == (30, ("some ranks are idle",))


def test_a_compact_embedding_counts_with_all_its_rows() -> None:
    model = nn.Sequential(nn.Embedding(10, 3), nn.Linear(3, 2))
    whole = build_info(model)["model"]
    model[0] = CompactEmbedding(nn.Embedding(10, 3), ids=(1, 4))
    compact = build_info(model)["model"]
    assert (whole["num_parameters"], whole["trained_embedding_rows"]) == (38, None)
    assert (compact["num_parameters"], compact["trained_embedding_rows"]) == (38, 2)


@pytest.mark.parametrize("is_local", [True, False])
def test_a_pretrained_model_comes_from_a_folder_or_from_the_hub(tmp_path: Path, is_local: bool) -> None:
    name = str(tmp_path) if is_local else "some/model"
    found = build_info(nn.Linear(3, 2), model={"name": name})["model"]
    assert (found["base"], found["origin"]) == (name, "folder" if is_local else "hub")


def test_a_parameter_that_zero_3_has_split_counts_in_full() -> None:
    model = nn.Linear(3, 2)
    vars(model.weight)["ds_numel"] = 600
    assert build_info(model)["model"]["num_parameters"] == 602
