"""What earlier runs have reached is read from their rows; only runs that are alike count."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dstrain.config.load import dump_config
from dstrain.errors import UserError
from dstrain.forecast.architecture import scratch_architecture
from dstrain.forecast.durations import forward_operations
from dstrain.forecast.earlier import Wanted, find_rates, is_alike, rates_of
from dstrain.forecast.gpus import find_gpu
from dstrain.forecast.weights import list_weights
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import load_record, write_run_info
from dstrain.run_folder.rows import append_row
from tests.unit.forecast.forecast_cases import build_recipe

ROWS = 408


def num_parameters(folder: Path) -> int:
    scratch = build_recipe(folder).model.scratch
    assert scratch is not None
    return sum(weight.numel for weight in list_weights(scratch_architecture(scratch, vocabulary=ROWS)))


def write_run(folder: Path, *, name: str, device: str = "cpu", seconds_per_row: float = 2.0, **changes: Any) -> Path:
    """A run of three rows, each of 10 steps with 1,000 padded positions on both sides and 800 labels."""
    run = folder / "runs" / name
    run.mkdir(parents=True)
    config = build_recipe(folder, output_dir=str(run), **changes)
    RunFolder(run).config.write_text(dump_config(config))
    report = {"source_tokens": 500, "target_tokens": 400}
    info = {
        "world_size": 2,
        "device": device,
        "data": {"eval": report},
        "model": {"num_parameters": num_parameters(folder)},
    }
    write_run_info(run, info)
    rows: list[dict[str, Any]] = [{"kind": "event", "event": "start", "step": 0, "lease": 1}]
    for number in (1, 2, 3):
        sizes = {"padded_source_tokens": 1000, "padded_target_tokens": 1000, "target_tokens": 800}
        rows.append(
            {"kind": "train", "step": 10 * number, "epoch": 0.1, "loss": 1.0, "lease": 1}
            | sizes
            | {"elapsed_seconds": 50.0 + seconds_per_row * number}
        )
    rows.append({"kind": "eval", "step": 30, "epoch": 0.3, "scores": {"loss": 1.0}, "seconds": 5.0, "lease": 1})
    for row in rows:
        append_row(RunFolder(run).metrics, row)
    return run


def wanted(folder: Path, **changes: Any) -> Wanted:
    return replace(Wanted("fp32", "m2m_100", num_parameters(folder), "cpu", None), **changes)


def test_a_rate_is_operations_over_seconds_and_ranks_without_the_warm_up(tmp_path: Path) -> None:
    run = write_run(tmp_path, name="one")
    scratch = build_recipe(tmp_path).model.scratch
    assert scratch is not None
    architecture = scratch_architecture(scratch, vocabulary=ROWS)
    operations = 3 * forward_operations(architecture, source=1000, target=1000, labels=800)
    rates = rates_of(run)
    assert rates.step_rate == pytest.approx(operations / 2.0 / 2)
    assert rates.evaluation_rate is not None
    assert rates.evaluation_rate > 0


def test_the_runs_beside_it_count_if_they_are_alike(tmp_path: Path) -> None:
    for name, seconds in (("one", 2.0), ("two", 4.0)):
        write_run(tmp_path, name=name, seconds_per_row=seconds)
    write_run(tmp_path, name="gpu", device="NVIDIA H100 80GB HBM3")
    (tmp_path / "runs" / "damaged").mkdir()
    (tmp_path / "runs" / "damaged" / "metrics.jsonl").write_text("no json\n")
    config = build_recipe(tmp_path)
    assert {rates.run for rates in find_rates(config, wanted=wanted(tmp_path))} == {"one", "two"}
    on_gpu = wanted(tmp_path, device="cuda", gpu=find_gpu("h100"))
    assert [rates.run for rates in find_rates(config, wanted=on_gpu)] == ["gpu"]
    assert find_rates(build_recipe(tmp_path, output_dir=str(tmp_path / "else" / "x")), wanted=wanted(tmp_path)) == []


@pytest.mark.parametrize(
    ("changes", "alike"),
    [
        ({}, True),
        ({"precision": "bf16"}, False),
        ({"kind": "mt5"}, False),
        ({"num_parameters": 10**9}, False),
        ({"device": "cuda", "gpu": find_gpu("h100")}, False),
    ],
)
def test_alike_is_the_same_device_precision_architecture_and_size(
    changes: dict[str, Any], alike: bool, tmp_path: Path
) -> None:
    record = load_record(write_run(tmp_path, name="one"))
    assert is_alike(record, wanted=wanted(tmp_path, **changes)) is alike


def test_a_run_that_says_nothing_is_refused_by_name(tmp_path: Path) -> None:
    run = write_run(tmp_path, name="one")
    lines = RunFolder(run).metrics.read_text().splitlines()
    RunFolder(run).metrics.write_text("\n".join(lines[:2]) + "\n")
    with pytest.raises(UserError, match="has no two training rows with a time"):
        rates_of(run)
