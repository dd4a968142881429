"""`dstrain plan`: what it prints, its refusals, and what it leaves unimported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dstrain.cli.app import app
from dstrain.config.load import dump_config
from tests.unit.forecast.forecast_cases import build_recipe

RUNNER = CliRunner()


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_config(build_recipe(tmp_path)))
    return str(path)


def test_a_plan_for_gpus_that_are_elsewhere(recipe: str) -> None:
    result = RUNNER.invoke(app, ["plan", recipe, "--gpus", "4", "--nodes", "2", "--gpu", "a100-40", "--hours", "1"])
    assert result.exit_code == 0, result.output
    assert "of each of 8 GPUs" in result.stdout
    assert "of 38.8 GB" in result.stdout


def test_overrides_and_json(recipe: str) -> None:
    result = RUNNER.invoke(app, ["plan", recipe, "training.max_steps=7", "--gpu-memory", "10GB", "--json"])
    values = json.loads(result.stdout)
    assert values["work"]["steps"] == 7
    assert values["gpu_bytes"] == 10_000_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "z9"], "--gpu z9: not known"),
        (["--gpu-memory", "much"], "--gpu-memory much: write a size"),
        (["--like", "nowhere"], "nowhere"),
        (["--measure", "5", "--nodes", "2"], "--measure runs on this machine only"),
        (["--gpu", "h100", "machine.device=cpu"], "the recipe trains on the CPU"),
        (["sead=1"], "sead: unknown key"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], message: str, recipe: str) -> None:
    result = RUNNER.invoke(app, ["plan", recipe, *arguments])
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_plan_imports_no_torch(recipe: str) -> None:
    code = (
        "import sys\nfrom dstrain.cli.app import app\n"
        f"try: app(['plan', {recipe!r}, '--gpu', 'h100'])\nexcept SystemExit as end: assert not end.code\n"
        "print([m for m in ('torch', 'deepspeed', 'transformers', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
