"""`dstrain export`: what it refuses before it writes."""

import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dstrain.cli.app import app
from dstrain.config.load import load_config
from tests.unit.cli.cli_cases import install_module, make_run

export = import_module("dstrain.cli.export")


def test_a_missing_run_folder_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(tmp_path / "nowhere"), str(tmp_path / "model")])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{tmp_path / 'nowhere'}: no such folder; give the run folder")


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (["config.yaml", "model/"], "model exists already: give another folder, or remove it"),
        (["config.yaml", "model.old/"], "model.old exists already"),
        (["config.yaml", "model.tmp"], "model.tmp exists already"),
        (["metrics.jsonl"], "is not a run folder: it holds no config.yaml"),
    ],
)
def test_export_writes_over_nothing(tmp_path: Path, there: list[str], message: str) -> None:
    for name in there:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    result = CliRunner().invoke(app, ["export", str(tmp_path), str(tmp_path / "model")])
    assert result.exit_code == 1
    assert message in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(name.rstrip("/") for name in there)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a tokenizer and without a checkpoint."""
    folder = tmp_path / "two 'q"
    make_run(folder, name="q")
    (folder / "tokenizer").mkdir()
    return folder


def test_what_is_wrong_with_the_run_folder_is_found_before_torch_is_imported(run: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom dstrain.cli.app import app\n"
        "try: app(sys.argv[1:])\nexcept SystemExit as end: assert end.code == 1\n"
        "print([m for m in ('torch', 'deepspeed', 'transformers') if m in sys.modules])"
    )
    arguments = ["export", str(run), str(tmp_path / "model")]
    messages = {"config.yaml": "not UTF-8", "tokenizer": "is missing", "": "no valid checkpoint"}
    for name, message in messages.items():
        broken = tmp_path / "broken" / name
        shutil.rmtree(broken if name else tmp_path / "broken", ignore_errors=True)
        shutil.copytree(run, tmp_path / "broken", dirs_exist_ok=True)
        if name == "config.yaml":
            broken.write_bytes(b"\xff")
        elif name:
            shutil.rmtree(broken)
        arguments[1] = str(tmp_path / "broken")
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert done.stdout == "[]\n"


def test_the_overrides_to_train_on_are_quoted(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported: list[Any] = []
    made = run.with_name("two 'q-weights #1")
    monkeypatch.setattr(export, "find_checkpoint", lambda path, *, step: path / "checkpoints" / "step-1")
    install_module(
        monkeypatch, "dstrain.run.export", export_checkpoint=lambda folder, **given: exported.append(given["to"])
    )
    result = CliRunner().invoke(app, ["export", str(run), str(made)], catch_exceptions=False)
    assert (result.exit_code, exported) == (0, [made])
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("to train on from it: ")]
    overrides = shlex.split(line.partition(": ")[2])
    assert overrides[1:] == ["model.scratch=null"]
    assert load_config("debug", overrides=overrides).model.name == str(made)


@pytest.mark.parametrize("name", ["a" * 300, "a" * 252])
def test_a_name_that_no_folder_can_have_is_one_line(name: str, run: Path, tmp_path: Path) -> None:
    for arguments in ([str(tmp_path / name), "x"] if len(name) == 300 else [], [str(run), str(tmp_path / name)]):
        if arguments:
            result = CliRunner().invoke(app, ["export", *arguments], catch_exceptions=False)
            assert result.exit_code == 1
            (line,) = result.stderr.splitlines()
            assert "has a name of" in line


def test_the_working_directory_is_not_written_over(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    result = CliRunner().invoke(app, ["export", str(run), "."], catch_exceptions=False)
    assert ". exists already" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "onnx"], '--to must be ctranslate2; found "onnx"'),
        (["--to", "ctranslate2", "--quantization", "int4"], "--quantization must be one of int8, int8_float32, "),
        (["--quantization", "int8"], '--quantization "int8" needs an engine that has it: give --to ctranslate2'),
        (["--to", "ctranslate2", "--trim"], "--trim and --to ctranslate2 do not go together"),
        (["--trim"], "--trim is for runs with model.vocabulary `seen`; this one trained the whole vocabulary"),
    ],
)
def test_options_of_an_engine_are_checked_first(run: Path, tmp_path: Path, options: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["export", str(run), str(tmp_path / "model"), *options], catch_exceptions=False)
    assert result.exit_code == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_converted_model_is_said_to_be_for_predictions(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def export_converted(folder: Any, **options: Any) -> str:
        given.update(options)
        return "64 rows are alike"

    made = run.with_name("fast")
    monkeypatch.setattr(export, "find_checkpoint", lambda path, *, step: path / "checkpoints" / "step-1")
    install_module(monkeypatch, "dstrain.run.convert", export_converted=export_converted)
    options = ["--to", "ctranslate2", "--quantization", "int8"]
    result = CliRunner().invoke(app, ["export", str(run), str(made), *options], catch_exceptions=False)
    assert result.exit_code == 0
    assert (given["to"], given["quantization"]) == (made, "int8")
    first, second, third = result.stdout.splitlines()
    assert first == "64 rows are alike"
    assert second.startswith(f"{made}: the model of ")
    assert third == f"to use it: dstrain predict {made}"
