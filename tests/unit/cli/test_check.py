"""`dstrain check`: what it prints, its exit codes, and what it leaves unimported."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dstrain.cli.app import app
from dstrain.config.load import load_config, recipe_hash
from dstrain.config.shipped import recipes_folder

RUNNER = CliRunner()


def test_check_says_ok_with_a_summary() -> None:
    result = RUNNER.invoke(app, ["check", "demo_translation"])
    assert result.exit_code == 0
    config = load_config("demo_translation")
    assert "demo_translation: ok" in result.stdout
    for part in ("scratch: m2m100", f"{config.training.max_steps} steps", "fp32", recipe_hash(config)[:16]):
        assert part in result.stdout


def test_check_applies_overrides_of_both_spellings_to_every_file() -> None:
    result = RUNNER.invoke(
        app, ["check", "demo_translation", "demo_parsing", "training.max_steps=7", "--set", "name=x"]
    )
    assert result.exit_code == 0
    assert result.stdout.count("7 steps") == 2
    assert result.stdout.count("runs/x") == 2


def test_check_reports_the_faults_of_all_files_and_fails(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("name: one\nsead: 1\n")
    (tmp_path / "two.yaml").write_text("name: [\n")
    result = RUNNER.invoke(app, ["check", str(tmp_path / "one.yaml"), "debug", str(tmp_path / "two.yaml"), "nowhere"])
    assert result.exit_code == 1
    assert "one.yaml:2: sead: unknown key; found 1; did you mean `seed`?" in result.stderr
    assert "two.yaml:2: not valid YAML" in result.stderr
    assert "nowhere: neither a file nor a shipped recipe" in result.stderr
    assert "debug: ok" in result.stdout
    assert "Traceback" not in result.output


def test_check_reports_missing_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = RUNNER.invoke(app, ["check", "mtop_pointer_scratch"])
    assert result.exit_code == 1
    assert result.stderr.count("no such file") == 2


@pytest.mark.parametrize(
    "override", [f"name={'a' * 400}", f"data.train.0.path={'a' * 300}", f"machine.cache_dir={'a' * 300}"]
)
def test_a_long_override_is_reported_by_its_key(override: str) -> None:
    result = RUNNER.invoke(app, ["check", "debug", override], catch_exceptions=False)
    assert result.exit_code == 1
    assert f": {override.partition('=')[0]}: " in result.stderr


def test_a_long_inline_value_is_an_override() -> None:
    rows = ", ".join("{demo: translation, max_rows: 8}" for _ in range(30))
    long = f"machine.deepspeed={{comms_logger: {{enabled: true, prof_ops: [{', '.join(['all_reduce'] * 60)}]}}}}"
    result = RUNNER.invoke(app, ["check", "debug", f"data.train=[{rows}]", long], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_a_long_name_of_a_recipe_is_reported() -> None:
    result = RUNNER.invoke(app, ["check", "a" * 300], catch_exceptions=False)
    assert result.exit_code == 1
    assert "neither a file nor a shipped recipe" in result.stderr


def test_check_wants_a_recipe() -> None:
    result = RUNNER.invoke(app, ["check", "seed=1"])
    assert result.exit_code == 2
    assert "name at least one recipe" in result.stderr


def test_check_says_of_a_sweep_what_it_is_and_what_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    for text in ("config: debug\noutput_dir: runs/x\ngrid: {seed: [1]}\n", "output_dir: runs/x\nlist: [{}]\n"):
        path.write_text(text)
        result = RUNNER.invoke(app, ["check", str(path), "training.max_steps=3"])
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith(f"{path}:1: this is a sweep, not a recipe; `dstrain sweep {path}`")


def test_a_recipe_with_a_key_of_a_sweep_is_still_a_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"extends: {recipes_folder() / 'debug.yaml'}\ngrid: {{seed: [1]}}\n")
    result = RUNNER.invoke(app, ["check", str(path)])
    assert "recipe.yaml:2: grid: unknown key" in result.stderr


def test_check_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom dstrain.cli.app import app\n"
        "try: app(['check', 'debug'])\nexcept SystemExit as end: assert end.code == 0\n"
        "print([m for m in ('torch', 'deepspeed', 'transformers', 'datasets', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_tracker_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    result = RUNNER.invoke(app, ["check", "debug", "logging.trackers.wanbd={}"])
    assert result.exit_code == 1
    assert (
        "logging.trackers.wanbd: there is no tracker `wanbd`: take one of tensorboard, wandb, mlflow" in result.stderr
    )
