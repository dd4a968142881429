"""`dstrain export`: what it refuses before it writes."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dstrain.cli.app import app


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
