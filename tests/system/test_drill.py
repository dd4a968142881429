"""A real drill from the command line, on a correct run and on sabotaged ones; and models exported from checkpoints."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from typer.testing import CliRunner, Result

from dstrain.checkpoint.manifest import verify_checkpoint
from dstrain.checkpoint.store import checkpoint_dirs
from dstrain.cli.app import app
from dstrain.config.load import load_config
from dstrain.config.schema import RunConfig
from tests.system.runs import build_run, read_rows, train

DEBUG = Path(__file__).resolve().parents[2] / "configs" / "debug.yaml"

SABOTAGE = """
import os, sys
from pathlib import Path

config = Path(next((word for word in sys.orig_argv if word.endswith(".yaml")), "none"))
if "DSTRAIN_DRILL" not in os.environ:
    if config.stem == "killed-step":
        import dstrain.engine.schedule as schedule
        rate = schedule.learning_rate_at
        schedule.learning_rate_at = lambda step, **others: 1.05 * rate(step, **others)
    elif config.stem == "killed-renamed":
        newest = max(config.with_suffix("").glob("checkpoints/step-*"))
        path = newest / "weights-00000.safetensors"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
"""
"""Runs in every launch: in one scenario the second launch has a higher learning rate, in another its checkpoint is damaged."""


def drill(folder: Path, *arguments: str) -> tuple[Result, dict[str, Any]]:
    """The output of the command, and its rows by scenario."""
    command = ["drill", str(DEBUG), f"machine.cache_dir={folder / 'cache'}", "logging.tensorboard=false"]
    result = CliRunner().invoke(app, [*command, "--output", str(folder / "drill"), *arguments], catch_exceptions=False)
    rows = json.loads((folder / "drill" / "drill.json").read_text())["stories"]
    return result, {row["story"]: row for row in rows}


def test_a_killed_run_of_two_ranks_equals_the_straight_one_and_its_weights_are_not_kept(tmp_path: Path) -> None:
    result, rows = drill(tmp_path, "--ranks", "2", "--scenarios", "manifest")
    assert result.exit_code == 0, result.output
    assert list(rows) == ["straight", "manifest"]
    row = rows["manifest"]
    assert row["stopped_in"][0].startswith("manifest, step ")
    assert row["went_on_from"] == 4
    assert row["exit_codes"] == [[-9, 85], [0, 0]]
    assert (row["losses"], row["scores"], row["same_weights"]) == (0.0, 0.0, True)
    assert "-9 85, then 0 0  0       0       bit-equal      ok" in result.stdout
    assert "| killed before the manifest " in (tmp_path / "drill" / "drill.md").read_text()
    assert list((tmp_path / "drill").rglob("*.safetensors")) == []
    assert "saved " in (tmp_path / "drill" / "killed-manifest.log").read_text()


def test_a_run_that_trains_differently_or_loses_a_checkpoint_is_not_ok(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SABOTAGE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    result, rows = drill(tmp_path, "--ranks", "1", "--scenarios", "step,renamed")
    assert result.exit_code == 1, result.output
    assert {name: row["ok"] for name, row in rows.items()} == {"straight": True, "step": False, "renamed": False}
    assert 1e-6 < rows["step"]["losses"] < 0.1
    assert rows["renamed"]["fault"] == "it resumed from step 4 although step 6 was saved"
    for title, folder in (("killed between steps", "killed-step"), ("killed after the rename", "killed-renamed")):
        assert f"NOT OK: {title}: " in result.stdout
        assert f"{tmp_path / 'drill' / folder}.log ends with:" in result.stdout
        assert (tmp_path / "drill" / folder / "final" / "model.safetensors").is_file()


def build_kept(folder: Path, **changes: Any) -> RunConfig:
    """A run that keeps the weights of step 4, which do not depend on the length of the run."""
    return build_run(
        folder,
        training__schedule="constant",
        checkpoint__every_steps=2,
        checkpoint__keep_weights_every_steps=4,
        **changes,
    )


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = build_kept(tmp_path_factory.mktemp("kept"))
    assert train(config) == [0]
    return Path(config.run_dir)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    return dict(model.state_dict())


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def export(run_dir: Path, folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["export", str(run_dir), str(folder), *arguments])


def test_the_newest_checkpoint_is_exported_as_the_final_model_and_can_be_trained_further(
    run_dir: Path, tmp_path: Path
) -> None:
    result = export(run_dir, tmp_path / "model")
    assert result.exit_code == 0, result.output
    made, advice = result.stdout.splitlines()
    assert made == f"{tmp_path / 'model'}: the model of {run_dir / 'checkpoints' / 'step-00000012.lease-1'}"
    assert are_equal(weights(tmp_path / "model"), weights(run_dir / "final"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    assert model.generation_config.forced_bos_token_id == tokenizer.get_lang_id("en")
    overrides = advice.removeprefix("to train on from it: ").split()
    config = load_config(str(run_dir / "config.yaml"), overrides=[*overrides, f"output_dir={tmp_path / 'on'}"])
    assert train(config) == [0]
    before, after = (load["loss"] for load in (first_row(run_dir), first_row(tmp_path / "on")))
    assert after < 0.95 * before


def first_row(run_dir: Path) -> dict[str, Any]:
    config = load_config(str(run_dir / "config.yaml"))
    return read_rows(config, kind="train")[0]


def test_a_checkpoint_of_weights_only_is_exported_as_the_model_of_its_step(run_dir: Path, tmp_path: Path) -> None:
    contents = {
        (manifest := verify_checkpoint(path)).step: manifest.content
        for path in checkpoint_dirs(run_dir / "checkpoints")
    }
    assert contents[4] == "weights"
    result = export(run_dir, tmp_path / "model", "--step", "4")
    assert result.exit_code == 0, result.output
    assert "step-00000004.lease-1" in result.stdout
    straight = build_kept(tmp_path / "short", training__max_steps=4)
    assert train(straight) == [0]
    assert are_equal(weights(tmp_path / "model"), weights(Path(straight.run_dir) / "final"))
    assert not are_equal(weights(tmp_path / "model"), weights(run_dir / "final"))


def test_export_names_what_is_missing_and_overwrites_nothing(run_dir: Path, tmp_path: Path) -> None:
    result = export(run_dir, tmp_path / "model", "--step", "7")
    assert result.exit_code == 1
    assert "no valid checkpoint of step 7 (steps there: 12, " in result.stderr
    assert not (tmp_path / "model").exists()
    before = (run_dir / "best" / "training_step.json").read_text()
    result = export(run_dir, run_dir / "best", "--step", "4")
    assert result.exit_code == 1
    assert "best exists already: give another folder, or remove it" in result.stderr
    assert (run_dir / "best" / "training_step.json").read_text() == before
