"""`dstrain predict`: its arguments and usage errors are those of `dstrain.predict`."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import dstrain.predict
from dstrain.cli.app import app
from dstrain.cli.predict import DEVICES, FORMATS

RUNNER = CliRunner()


def test_predict_gives_its_arguments_to_the_entry_that_launchers_start(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def main(argv: Any, *, program: str) -> int:
        seen.append(vars(plain_arguments(argv, program=program)))
        return 1

    plain_arguments = dstrain.predict.parse_arguments
    monkeypatch.setattr(dstrain.predict, "main", main)
    given = {
        "input": Path("a.tsv"),
        "output": Path("b.tsv"),
        "format": "tsv",
        "config": "debug",
        "step": 7,
        "source_column": 2,
        "source_language_column": "from",
        "target_language_column": "to",
        "source_language": "ko",
        "target_language": "en",
        "prefix": "- parse: ",
        "beams": 4,
        "length_penalty": -0.5,
        "max_new_tokens": 60,
        "max_source_tokens": 70,
        "n_best": 3,
        "batch_tokens": 900,
        "device": "cpu",
    }
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    assert RUNNER.invoke(app, ["predict", "runs/x", "--pointers", *arguments]).exit_code == 1
    assert seen == [{"model": "runs/x", "pointers": True, "local_rank": None, **given}]


def test_what_a_shell_offers_is_what_predict_takes() -> None:
    for option, values in (("format", FORMATS), ("device", DEVICES)):
        for value in values:
            given = dstrain.predict.parse_arguments(["x", f"--{option}={value}"], program="predict")
            assert getattr(given, option) == value


def test_predict_names_itself_in_a_usage_error() -> None:
    result = RUNNER.invoke(app, ["predict", "x", "--format", "csv"])
    assert result.exit_code == 2
    assert result.stderr.startswith("usage: dstrain predict ")
