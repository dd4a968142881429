"""`dstrain card`: where the card was written, or why not."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dstrain.cli.app import app
from dstrain.errors import UserError
from tests.unit.cli.cli_cases import install_module
from tests.unit.html_report.html_report_cases import make_failed_starts

RUNNER = CliRunner()


def test_card_prints_where_it_wrote_and_no_traceback_for_a_folder_that_is_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_card(run_dir: Path) -> Path:
        if not run_dir.is_dir():
            raise UserError(f"{run_dir} is no run folder")
        return run_dir / "README.md"

    install_module(monkeypatch, "dstrain.reporting.card", write_card=write_card)
    assert RUNNER.invoke(app, ["card", str(tmp_path)]).stdout.strip() == f"{tmp_path}/README.md"
    result = RUNNER.invoke(app, ["card", str(tmp_path / "nowhere")])
    assert result.exit_code == 1
    assert result.stderr.strip() == f"{tmp_path}/nowhere is no run folder"


def test_a_run_that_has_never_begun_to_train_says_why_and_what_to_do(tmp_path: Path) -> None:
    failed = make_failed_starts(tmp_path / "failed").path
    file = tmp_path / "sources.txt"
    file.touch()
    for command, *others in (
        ["card"], ["average", "--last", "2"], ["export", "folder"], ["track"], ["evaluate"], ["predict", "--input", str(file)],
    ):  # fmt: skip
        result = RUNNER.invoke(app, [command, str(failed), *others])
        assert result.exit_code == (2 if command in ("evaluate", "predict") else 1), command
        assert f"{failed}: the run has never begun to train: it holds lease, outcome.json" in result.stderr
        assert (
            "Its last start failed (no weights): mend that, then give the command that started it again"
            in result.stderr
        )
        assert "Traceback" not in result.output
