"""`dstrain train`: its arguments and its exit code are those of `dstrain.train`."""

import pytest
from typer.testing import CliRunner

from dstrain.cli.app import app
from tests.unit.cli.cli_cases import install_module

RUNNER = CliRunner()


def test_train_passes_its_arguments_on_and_ends_with_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def main(argv: list[str]) -> int:
        seen.append(argv)
        return 85

    install_module(monkeypatch, "dstrain.train", main=main)
    options = ["--config", "debug", "seed=1", "--debug", "--overfit", "8", "--allow-changed", "training"]
    result = RUNNER.invoke(app, ["train", *options])
    assert result.exit_code == 85
    assert seen == [options]
