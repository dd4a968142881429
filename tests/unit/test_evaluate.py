"""The program that scores: what it refuses before torch is imported, and what it never takes for a user's mistake."""

from pathlib import Path
from typing import Any

import pytest

from dstrain import evaluate
from dstrain.cluster.exit_codes import EXIT_USAGE
from dstrain.evaluate import main


def test_what_cannot_be_scored_ends_with_a_message_and_nothing_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"{tmp_path}/absent", "--config", "debug"]) == EXIT_USAGE
    assert capsys.readouterr().err.startswith(f"{tmp_path}/absent: no such folder")
    assert list(tmp_path.iterdir()) == []


def test_a_value_error_of_the_program_is_never_taken_for_a_users_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slip(options: Any) -> Any:
        first, second = [options]
        raise AssertionError(first, second)

    monkeypatch.setattr(evaluate, "plan_evaluation", slip)
    with pytest.raises(ValueError, match="not enough values to unpack"):
        main(["some/model"])
    assert capsys.readouterr().err == ""
