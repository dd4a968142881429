"""What a recipe needs, looked up before anything is loaded."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from dstrain.config.load import load_config
from dstrain.errors import UserError
from dstrain.run.recipe_check import check_needs
from tests.unit.tasks.own_module import TASK, write_module


def test_all_that_is_missing_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = write_module(tmp_path, TASK, monkeypatch=monkeypatch)
    found = importlib.util.find_spec
    monkeypatch.setattr("dstrain.run.recipe_check.find_spec", lambda name: None if name == "peft" else found(name))
    (tmp_path / "rows.tsv").write_text("text\tlabel\na\tb\n")
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": "b"}\n')
    given = [
        f"task.kind={module}:Nope",
        "evaluation.metrics=[chrf, no_such:score]",
        "model={name: some/model, adapter: {}}",
        "data.train=[{path: rows.tsv, source_column: txt, target_column: label}]",
        "data.eval=[{path: rows.jsonl, source_column: text, target_column: tag}]",
    ]
    config = load_config("demo_translation", overrides=[*given, "name=x"])
    with pytest.raises(UserError) as caught:
        check_needs(config, reads_data=True)
    peft, task, metric, train, evaluation = str(caught.value).splitlines()
    assert "model.adapter needs peft" in peft
    assert "has no function or class `Nope`" in task
    assert metric.startswith("evaluation.metrics `no_such:score`: there is no module `no_such`")
    assert train.startswith("data.train.0: rows.tsv:1: no column `txt`; the columns are `text`, `label`")
    assert evaluation.startswith("data.eval.0: rows.jsonl:1: no column `tag`; the columns are `text`, `label`")
    with pytest.raises(UserError) as caught:
        check_needs(config)
    assert "no column" not in str(caught.value)


def test_a_recipe_with_all_it_needs_passes_and_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = write_module(tmp_path, "raise SystemExit\n" + TASK, monkeypatch=monkeypatch)
    (tmp_path / "rows.tsv").write_text("text\tlabel\na\tb\n")
    rows = "[{path: rows.tsv, source_column: text, target_column: label}]"
    given = [f"task.kind={module}:Shout", "evaluation.metrics=[chrf]", f"data.train={rows}", f"data.eval={rows}"]
    check_needs(load_config("demo_translation", overrides=given), reads_data=True)


def test_a_start_without_peft_is_refused_before_torch_and_before_a_folder_is_made(tmp_path: Path) -> None:
    code = (
        "import importlib.util, sys\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'peft' else found(name, *rest)\n"
        "from dstrain.train import main\n"
        "code = main(['--config', 'debug', 'model={name: some/model, adapter: {}}', 'output_dir=run'])\n"
        "sys.exit(7 if 'torch' in sys.modules else code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "model.adapter needs peft" in done.stderr
    assert not (tmp_path / "run").exists()
