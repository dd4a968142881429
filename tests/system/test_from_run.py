"""Runs that begin with the weights of another: they learn what a run from an exported folder learns, and outlive the other."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dstrain.checkpoint.store import find_checkpoint
from dstrain.cluster.exit_codes import EXIT_PREEMPTED
from dstrain.config.schema import RunConfig
from dstrain.run.export import export_checkpoint
from dstrain.run_folder.layout import RunFolder
from tests.system.runs import build_run, read_rows, train


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 12 steps, evaluated at 5, 10 and 12."""
    config = build_run(tmp_path_factory.mktemp("other"), checkpoint__keep_last=4)
    assert train(config) == [0]
    return Path(config.run_dir)


def build(folder: Path, model: dict[str, Any], **changes: Any) -> RunConfig:
    return build_run(folder, model={**model, "dropout": 0.1}, training__max_steps=6, **changes)


def losses(config: RunConfig) -> list[Any]:
    return [row["loss"] for row in read_rows(config, kind="train")]


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_checkpoint_of_a_run_is_the_short_form_of_its_export(other: Path, tmp_path: Path, world_size: int) -> None:
    folder = RunFolder(other)
    export_checkpoint(folder, directory=find_checkpoint(other, step=8), to=tmp_path / "exported")
    by_hand = build(tmp_path / "by hand", {"name": str(tmp_path / "exported")})
    short = build(tmp_path / "short", {"from_run": f"{other}@8"})
    assert train(by_hand, world_size=world_size) == train(short, world_size=world_size) == [0] * world_size
    assert losses(short) == losses(by_hand)
    assert len(losses(short)) == 6
    weights = (Path(each.run_dir) / "final" / "model.safetensors" for each in (by_hand, short))
    assert len({path.read_bytes() for path in weights}) == 1


def test_the_best_model_is_where_a_run_begins_that_names_no_step_and_record_and_card_say_so(
    other: Path, tmp_path: Path
) -> None:
    best = build(tmp_path / "best", {"name": str(other / "best")})
    short = build(tmp_path / "short", {"from_run": str(other)})
    assert train(best) == train(short) == [0]
    assert losses(short) == losses(best)
    step = json.loads((other / "best" / "training_step.json").read_text())["step"]
    base = json.loads((Path(short.run_dir) / "run.json").read_text())["model"]["from_run"]
    assert (base["run"], base["step"]) == (str(other), step)
    card = (Path(short.run_dir) / "README.md").read_text()
    assert f"step {step} (sha256 of its weights `{base['sha256']}`)" in card


def test_a_killed_run_resumes_without_the_other_run_as_if_nothing_had_happened(other: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy of the other"
    shutil.copytree(other, copied)
    straight = build(tmp_path / "straight", {"from_run": f"{other}@best"})
    assert train(straight) == [0]
    config = build(tmp_path / "killed", {"from_run": f"{copied}@best"})
    assert train(config, stop_after=2) == [EXIT_PREEMPTED]
    shutil.rmtree(copied)
    assert train(config) == [0]
    assert losses(config) == losses(straight)
