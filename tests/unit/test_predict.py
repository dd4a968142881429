"""The program that predicts: what it refuses before torch is imported, and how it ends."""

from pathlib import Path
from typing import Any

import pytest

from dstrain import predict
from dstrain.cluster.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from dstrain.errors import UserError
from dstrain.predict import main


def test_what_cannot_be_predicted_ends_with_a_message_and_nothing_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"{tmp_path}/absent"]) == EXIT_USAGE
    assert capsys.readouterr().err.startswith(f"{tmp_path}/absent: no such folder")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("rows.tsv:3: wrong"), EXIT_FAILED, "rows.tsv:3: wrong\n"),
        (OSError(28, "No space left on device", "out.txt"), EXIT_FAILED, "out.txt: No space left on device\n"),
        (KeyboardInterrupt(), EXIT_INTERRUPTED, ""),
    ],
)
def test_the_exit_code_says_how_it_ended(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    error: BaseException,
    code: int,
    said: str,
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(predict, "_predict", fail)
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    assert main([str(tmp_path)]) == code
    assert capsys.readouterr().err == said


def test_without_a_run_folder_and_a_port_the_ranks_of_srun_cannot_meet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(predict, "needs_rendezvous", lambda process: True)
    assert main([str(tmp_path)]) == EXIT_USAGE
    assert "start with torchrun, or set MASTER_PORT" in capsys.readouterr().err
