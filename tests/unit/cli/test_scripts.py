"""`dstrain scripts`: copies that work, and no file of the user's is replaced."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dstrain.cli.app import app
from dstrain.config.shipped import script_folders


def test_the_scripts_are_copied_with_their_modes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["scripts"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("launch: debug.sh, ")
    for source in script_folders():
        files = [path for path in source.iterdir() if path.is_file()]
        assert {path.name for path in files} == set(os.listdir(source.name))
        for path in files:
            copy = tmp_path / source.name / path.name
            assert copy.read_bytes() == path.read_bytes()
            assert copy.stat().st_mode == path.stat().st_mode
    assert os.access("launch/torchrun.sh", os.X_OK)


def test_a_second_copy_changes_nothing_and_adds_what_is_missing(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["scripts", str(tmp_path)]).exit_code == 0
    (tmp_path / "slurm" / "train.sbatch").unlink()
    before = (tmp_path / "launch" / "train.py").stat().st_mtime_ns
    assert CliRunner().invoke(app, ["scripts", str(tmp_path)]).exit_code == 0
    assert (tmp_path / "slurm" / "train.sbatch").is_file()
    assert (tmp_path / "launch" / "train.py").stat().st_mtime_ns == before


def test_another_file_is_not_replaced_and_nothing_is_written(tmp_path: Path) -> None:
    mine = tmp_path / "slurm" / "step.sh"
    mine.parent.mkdir()
    for make in (lambda: mine.write_text("mine\n"), lambda: (mine.unlink(), mine.symlink_to("nowhere"))):
        make()
        result = CliRunner().invoke(app, ["scripts", str(tmp_path)])
        assert result.exit_code == 1
        assert result.stderr == f"{mine} exists already and is another file: name another folder, or remove it\n"
        assert os.listdir(tmp_path) == ["slurm"]
