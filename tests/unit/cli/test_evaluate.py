"""`dstrain evaluate`: its arguments and usage errors are those of `dstrain.evaluate`."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import dstrain.evaluate
from dstrain.cli.app import app

RUNNER = CliRunner()


def test_evaluate_gives_its_arguments_to_the_entry_that_launchers_start(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def main(argv: Any, *, program: str) -> int:
        seen.append(vars(plain_arguments(argv, program=program)))
        return 1

    plain_arguments = dstrain.evaluate.parse_arguments
    monkeypatch.setattr(dstrain.evaluate, "main", main)
    arguments = ["evaluate", "runs/x", "seed=1", "--config", "debug", "--step", "7", "--as", "flores", "--output", "o"]
    assert RUNNER.invoke(app, [*arguments, "--pending"]).exit_code == 1
    assert seen == [
        {
            "model": "runs/x",
            "overrides": ["seed=1"],
            "config": "debug",
            "step": 7,
            "name": "flores",
            "pending": True,
            "output": Path("o"),
            "local_rank": None,
        }
    ]


def test_evaluate_names_itself_in_a_usage_error_and_takes_a_value_that_looks_like_an_option(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["evaluate", str(tmp_path), "--", "-x=1"])
    assert result.exit_code == 2
    assert result.stderr.startswith("usage: dstrain evaluate ")
    result = RUNNER.invoke(app, ["evaluate", str(tmp_path), "--as", "-x"])
    assert "needs a run folder" in result.stderr
