"""`dstrain average`: what it refuses before torch is imported."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dstrain.cli.app import app


@pytest.mark.parametrize("given", [[], ["--last", "2", "--best", "2"], ["--steps", "4", "--last", "1"]])
def test_exactly_one_choice_of_checkpoints_is_wanted(tmp_path: Path, given: list[str]) -> None:
    result = CliRunner().invoke(app, ["average", str(tmp_path), *given])
    assert result.exit_code == 1
    assert "give one of --last N, --best N and --steps A,B,…" in result.stderr


@pytest.mark.parametrize("steps", ["4;5", "", "4,", "-3", "a"])
def test_steps_that_are_no_numbers_are_refused(tmp_path: Path, steps: str) -> None:
    result = CliRunner().invoke(app, ["average", str(tmp_path), f"--steps={steps}"])
    assert result.exit_code == 1
    assert "write steps with commas between them" in result.stderr


def test_a_folder_that_is_no_run_and_an_output_that_exists_are_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["average", str(tmp_path), "--last", "2"])
    assert result.exit_code == 1
    assert "is not a run folder: it holds no config.yaml" in result.stderr
