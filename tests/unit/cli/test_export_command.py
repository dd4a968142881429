"""`dstrain export`: what it refuses to overwrite."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dstrain.cli import app


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (["config.yaml", "model/"], "model exists already: give another folder, or remove it"),
        (["config.yaml", "model.old/"], "model.old exists already"),
        (["config.yaml", "model.tmp"], "model.tmp exists already"),
        (["metrics.jsonl"], "is no run folder: it holds no config.yaml"),
    ],
)
def test_export_overwrites_nothing(tmp_path: Path, there: list[str], message: str) -> None:
    for name in there:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    result = CliRunner().invoke(app, ["export", str(tmp_path), str(tmp_path / "model")])
    assert result.exit_code == 1
    assert message in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(name.rstrip("/") for name in there)
