"""`make check-gpu` works, as far as that can be seen without a GPU: checks run, and a failing or slow one stops no other."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import __main__ as program
from tests.gpu.checks import CHECKS, Check

pytestmark = pytest.mark.slow


def test_a_line_of_json_comes_after_each_check(tmp_path: Path) -> None:
    path = tmp_path / "checks.jsonl"
    command = [sys.executable, "-m", "tests.gpu", "--tiny", "--only", "loss,own_gpu,search,saves", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["check"], line["ok"]) for line in lines] == [
        (name, True) for name in ("loss", "own_gpu", "search", "saves")
    ]


def test_a_check_that_is_slow_is_ended_and_one_that_fails_shows_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = program.run("loss", is_tiny=True, limit_seconds=0.1)
    assert (slow["ok"], slow["found"]) == (False, "took longer than 0 s")

    def fail(is_tiny: bool) -> Any:
        raise RuntimeError("wrong on this device")

    monkeypatch.setitem(CHECKS, "loss", Check(fail))
    program.answer("loss", is_tiny=True)
    answer = json.loads(capsys.readouterr().out.removeprefix(program.MARK))
    assert not answer["ok"]
    assert "wrong on this device" in answer["found"]
