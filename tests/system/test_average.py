"""Averages of a run's checkpoints: at its end on any ranks and stages, and by the command; scored, exported and on the card."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM
from typer.testing import CliRunner

from dstrain.cli.app import app
from dstrain.config.schema import RunConfig
from dstrain.run_folder.average import read_average
from dstrain.run_folder.layout import RunFolder
from tests.system.runs import build_run, train

STEPS = (8, 10, 12)


def build_averaged(folder: Path, **changes: Any) -> RunConfig:
    keeps = {"checkpoint__every_steps": 2, "checkpoint__keep_weights_every_steps": 2}
    return build_run(folder, **{**keeps, "evaluation__average_last": 3, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run with an average, on two ranks."""
    config = build_averaged(tmp_path_factory.mktemp("run"), machine__zero_stage=2)
    assert train(config, world_size=2) == [0, 0]
    return RunFolder(Path(config.run_dir))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype="auto").state_dict()
    return state


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_average_at_the_end_is_the_mean_of_the_exports(run: RunFolder, tmp_path: Path) -> None:
    exports = []
    for step in STEPS:
        invoke("export", run.path, tmp_path / str(step), "--step", step)
        exports.append(weights(tmp_path / str(step)))
    for name, tensor in weights(run.average.path).items():
        mean = sum(each[name].double() for each in exports) / len(STEPS)
        assert torch.equal(tensor, mean.float()), name  # type: ignore[union-attr]
    average = read_average(run)
    assert average is not None
    assert average.steps == STEPS
    assert {"bleu", "loss"} <= average.scores.scores.keys()
    assert "The mean of the weights at the steps 8, 10, 12 is in `average/`." in run.card.read_text()


def test_the_command_finds_the_same_weights_and_scores(run: RunFolder, tmp_path: Path) -> None:
    output = invoke("average", run.path, "--last", 3, "--output", tmp_path / "again")
    found, expected = weights(tmp_path / "again"), weights(run.average.path)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    average = read_average(run)
    assert average is not None
    scores = json.loads((tmp_path / "again" / "scores" / "step-00000012.json").read_text())["scores"]
    assert scores == pytest.approx(average.scores.scores, rel=1e-5)
    assert "the mean of the weights at the steps 8, 10, 12" in output


def test_the_average_of_one_checkpoint_is_its_export_to_the_bit(run: RunFolder, tmp_path: Path) -> None:
    invoke("export", run.path, tmp_path / "export", "--step", 10)
    invoke("average", run.path, "--steps", 10, "--output", tmp_path / "average")
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("export", "average"))
    assert one == other


def test_the_command_puts_its_average_on_the_card_in_the_place_of_the_other(run: RunFolder) -> None:
    output = invoke("average", run.path, "--best", 2)
    assert "than the best evaluation" in output
    average = read_average(run)
    assert average is not None
    assert len(average.steps) == 2
    assert f"at the steps {average.steps[0]}, {average.steps[1]} is in" in run.card.read_text()


@pytest.mark.parametrize(("world_size", "changes"), [(1, {"machine__zero_stage": 0}), (2, {"machine__zero_stage": 3})])
def test_an_average_on_other_ranks_and_stages_has_the_same_scores(
    tmp_path: Path, world_size: int, changes: dict[str, Any]
) -> None:
    config = build_averaged(tmp_path, precision="bf16" if world_size == 1 else "fp32", **changes)
    assert train(config, world_size=world_size) == [0] * world_size
    run = RunFolder(Path(config.run_dir))
    average = read_average(run)
    assert average is not None
    invoke("average", run.path, "--last", 3, "--output", tmp_path / "again")
    found, expected = weights(tmp_path / "again"), weights(run.average.path)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_at_the_end_fewer_checkpoints_than_wanted_are_averaged(tmp_path: Path) -> None:
    config = build_averaged(tmp_path, evaluation__average_last=50)
    assert train(config) == [0]
    average = read_average(RunFolder(Path(config.run_dir)))
    assert average is not None
    assert average.steps == (2, 4, 6, 8, 10, 12)
