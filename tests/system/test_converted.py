"""Trained runs, converted for CTranslate2: proved equal, used by predictions, and refused where they are not the model."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from dstrain.checkpoint.store import find_checkpoint
from dstrain.cli.app import app
from dstrain.models.save import ExportError
from dstrain.predict import main as predict
from dstrain.run import convert
from dstrain.run_folder.began import read_run_config
from dstrain.run_folder.layout import RunFolder
from tests.system.bases import write_base
from tests.system.runs import NUM_EVAL, build_run, train

NO_LANGUAGES = {"task__source_language": None, "task__target_language": None}
MBART_LANGUAGES = {"task__source_language": "ko_KR", "task__target_language": "en_XX"}
RUNS: dict[str, dict[str, Any]] = {
    "m2m100": {},
    "mbart": {"model__scratch__architecture": "mbart", **MBART_LANGUAGES},
    "marian": {"model__scratch__architecture": "marian", **NO_LANGUAGES},
    "t5": {"model__scratch__architecture": "t5", **NO_LANGUAGES, "precision": "bf16"},
    "seen": {"evaluation__best_metric": "loss"},
}
"""What is trained: a model from scratch of each family whose export differs, and part of the vocabulary of a base."""


@pytest.fixture(scope="module", params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A trained run whose evaluations search with 3 beams."""
    folder = tmp_path_factory.mktemp(request.param)
    changes: dict[str, Any] = {
        "model__dropout": 0.0,
        "training__max_steps": 150,
        "training__learning_rate": 5e-3,
        "evaluation": {"every_steps": 150, "num_beams": 3, "max_new_tokens": 14},
        "checkpoint__every_steps": 150,
    }
    if request.param == "seen":
        write_base(folder / "base", architecture="m2m100")
        changes["model"] = {"name": str(folder / "base"), "vocabulary": "seen"}
        changes.pop("model__dropout")
    config = build_run(folder, **{**changes, **RUNS[request.param]})
    assert train(config) == [0]
    return RunFolder(Path(config.run_dir))


def export(run: RunFolder, to: Path, *options: str) -> str:
    """What the command says."""
    done = CliRunner().invoke(app, ["export", str(run.path), str(to), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def predictions(model: Path, run: RunFolder, *options: str) -> bytes:
    """Those of the sources of the evaluation rows."""
    rows, output = model.with_name("rows.txt"), model.with_name("found.txt")
    lines = (run.path.parent / "eval.tsv").read_text().splitlines()
    rows.write_text("".join(line.split("\t")[0] + "\n" for line in lines))
    files = ["--input", str(rows), "--output", str(output), "--device", "cpu"]
    assert predict([str(model), *files, *options]) == 0
    return output.read_bytes()


def test_greedy_predictions_are_byte_for_byte_those_of_the_model(
    run: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = export(run, tmp_path / "fast", "--to", "ctranslate2")
    assert f"{NUM_EVAL} evaluation rows: CTranslate2" in said
    assert "finds the greedy hypotheses of the model" in said
    export(run, tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    if read_run_config(run).precision == "bf16":
        (tmp_path / "model" / "training_step.json").unlink()  # without it the model computes in fp32 too
    expected = predictions(tmp_path / "model", run, "--beams", "1")
    caplog.clear()
    assert predictions(tmp_path / "fast", run, "--beams", "1") == expected
    assert any("greedy search by CTranslate2" in text and "(float32)" in text for text in caplog.messages)
    assert len(set(expected.splitlines())) > 3, "the model says the same of every row: nothing is shown"
    # all that an exported folder holds, but for the weights
    assert {path.name for path in (tmp_path / "fast").iterdir()} == names - {"model.safetensors"} | {"ctranslate2"}
    assert sorted(path.name for path in tmp_path.glob("fast*")) == ["fast"]


def test_a_quantised_export_says_what_it_costs_and_keeps_it(run: RunFolder, tmp_path: Path) -> None:
    said = export(run, tmp_path / "small", "--to", "ctranslate2", "--quantization", "int8")
    record = json.loads((tmp_path / "small" / "ctranslate2" / "dstrain.json").read_text())
    assert (record["quantization"], record["num_proved"]) == ("int8", NUM_EVAL)
    cost = record["cost"]
    assert (cost["metric"], cost["num_rows"], cost["num_beams"]) == ("bleu", NUM_EVAL, 3)
    line = f"bleu {cost['plain']:.4f} → {cost['quantized']:.4f} with int8 ({NUM_EVAL} rows, same search)"
    assert line in said.splitlines()
    assert "(int8)" in said or "float32" in said
    predictions(tmp_path / "small", run)


def test_the_best_of_a_beam_come_with_scores(run: RunFolder, tmp_path: Path) -> None:
    export(run, tmp_path / "fast", "--to", "ctranslate2")
    found = predictions(tmp_path / "fast", run, "--format", "tsv", "--n-best", "2").decode().splitlines()
    assert len(found) == 2 * NUM_EVAL
    scores = [float(line.split("\t")[3]) for line in found]
    assert all(best >= second for best, second in zip(scores[::2], scores[1::2], strict=True))


@pytest.mark.parametrize("run", ["m2m100"], indirect=True)
def test_a_conversion_that_is_not_the_model_leaves_no_folder(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faithful = convert.convert

    def damaged(model: Any, **given: Any) -> None:
        weight = model.get_decoder().layers[0].fc1.weight
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.neg_()
            faithful(model, **given)
            weight.copy_(kept)

    monkeypatch.setattr(convert, "convert", damaged)
    directory = find_checkpoint(run.path, step=150)
    with pytest.raises(
        ExportError, match=r"eval\.tsv:\d+: greedy search by CTranslate2 .* finds '.*', and by the model '"
    ):
        convert.export_converted(run, directory=directory, to=tmp_path / "fast", quantization=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("run", ["m2m100"], indirect=True)
@pytest.mark.parametrize("part", ["exported", "plain"])
def test_a_kill_leaves_no_folder_of_that_name(run: RunFolder, tmp_path: Path, part: str) -> None:
    made, draft = tmp_path / "fast", tmp_path / "fast.tmp"
    command = [sys.executable, "-m", "dstrain", "export", str(run.path), str(made), "--to", "ctranslate2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (draft / part).exists() and not made.exists():
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    if made.exists():  # the kill came too late
        assert (made / "ctranslate2" / "dstrain.json").exists()
        assert not draft.exists()
        return
    done = CliRunner().invoke(app, ["export", str(run.path), str(made), "--to", "ctranslate2"])
    assert "fast.tmp exists already" in done.stderr
    shutil.rmtree(draft)
    export(run, made, "--to", "ctranslate2")
