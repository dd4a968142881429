"""`dstrain doctor`: its exit codes, its two forms, and what a recipe adds."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dstrain.cli.app import app
from dstrain.doctor import examine
from dstrain.doctor.examine import Plan
from dstrain.doctor.finding import Finding, note, ok, problem
from dstrain.doctor.libraries import Wish

RUNNER = CliRunner()


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that were examined; each examination finds nothing wrong."""
    seen = []

    def find_nothing(plan: Plan) -> Iterator[Finding]:
        seen.append(plan)
        yield note("gpus", "there is none")

    monkeypatch.setattr(examine, "examine", find_nothing)
    return seen


def test_a_machine_without_problems_ends_with_0(plans: list[Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    result = RUNNER.invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "nothing prevents training: 0 problems, 1 note"
    assert plans == [Plan(Path("runs"), Path("/cache/dstrain"))]


def test_a_problem_ends_with_1_in_both_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = problem("torch", "ImportError: no", way_out="install it again")
    monkeypatch.setattr(examine, "examine", lambda plan: iter([ok("cpus", "4 of 4"), broken]))
    text, values = RUNNER.invoke(app, ["doctor"]), RUNNER.invoke(app, ["doctor", "--json"])
    assert (text.exit_code, values.exit_code) == (1, 1)
    assert "PROBLEM  torch  ImportError: no" in text.stdout
    found = json.loads(values.stdout)
    assert (found["can_train"], [each["level"] for each in found["findings"]]) == (False, ["ok", "problem"])


def test_a_recipe_says_where_and_on_what(plans: list[Plan], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"extends: demo_translation\nprecision: bf16\noutput_dir: {tmp_path}/run\n"
        f"machine: {{device: cuda, cache_dir: {tmp_path}/cache}}\n"
    )
    result = RUNNER.invoke(app, ["doctor", str(path)])
    assert result.exit_code == 0, result.output
    assert plans == [Plan(tmp_path / "run", tmp_path / "cache", Wish("cuda", "bf16"))]


def test_a_wrong_recipe_is_a_problem_and_the_machine_is_examined_all_the_same(plans: list[Plan]) -> None:
    result = RUNNER.invoke(app, ["doctor", "demo_translaton"])
    assert result.exit_code == 1
    assert "did you mean `demo_translation`?" in result.stdout
    assert "→ correct it until `dstrain check demo_translaton` says ok" in result.stdout
    assert len(plans) == 1


@pytest.mark.slow
def test_this_machine_is_examined_without_importing_what_may_be_broken(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom dstrain.cli.app import app\n"
        "try: app(['doctor', 'debug', '--json'])\nexcept SystemExit as end: print(end.code, file=sys.stderr)\n"
        "print([name for name in ('torch', 'deepspeed', 'numpy') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    *_, exit_code, imported = done.stderr.splitlines()
    assert imported == "[]"
    assert exit_code == str(0 if found["can_train"] else 1)
    by_topic = {finding["topic"]: finding for finding in found["findings"]}
    assert [by_topic[topic]["level"] for topic in ("torch", "deepspeed", "recipe")] == ["ok"] * 3
