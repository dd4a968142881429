"""A task, a metric and a program of the user's own, from files outside the package, in complete runs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from dstrain.cluster.environment import ProcessInfo
from dstrain.config.schema import RunConfig
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import load_record
from tests.distributed.ranks import start_ranks
from tests.system.runs import _train, build_run

CODE = """
class Backwards:
    def source(self, text):
        return text
    def target(self, text, source):
        return " ".join(reversed(text.split()))
    def answer(self, text, source):
        return " ".join(reversed(text.split()))

def words(hypotheses, references, sources):
    return [len(text.split()) for text in hypotheses]
"""
COUNT = """
import pathlib, sys
rows = [len(pathlib.Path(name).read_text().splitlines()) for name in sys.argv[1:]]
assert len(set(rows)) == 1
with open("started", "a") as file:
    print(sys.argv[1], file=file)
print("rows:", rows[0])
"""


def train_in(folder: Path, config: RunConfig, *, world_size: int, stop_after: int | None = None) -> list[int]:
    """Exit codes of ranks that start in this folder."""
    return start_ranks(_train_in, folder, config.model_dump(mode="json"), stop_after, world_size=world_size)


def _train_in(place: ProcessInfo, folder: Path, values: dict[str, Any], stop_after: int | None) -> int:
    os.chdir(folder)
    return _train(place, values, stop_after, (), None)


def build(folder: Path, **changes: Any) -> RunConfig:
    (folder / "my_code.py").write_text(CODE)
    (folder / "count.py").write_text(COUNT)
    files = ["{hypotheses}", "{sources}", "{references}"]
    evaluation = {
        "every_steps": 5,
        "max_new_tokens": 12,
        "metrics": ["exact_match", "my_code:words"],
        "external": {
            "rows": {"command": [sys.executable, "count.py", *files], "every": "evaluation"},
            "last": {"command": [sys.executable, "count.py", *files]},
        },
    }
    given = {"model__scratch__architecture": "t5", "task": {"kind": "my_code:Backwards"}, "evaluation": evaluation}
    return build_run(folder, **given | changes)


def test_they_are_used_in_training_evaluation_card_and_prediction(tmp_path: Path) -> None:
    config = build(tmp_path)
    assert train_in(tmp_path, config, world_size=2) == [0, 0]
    record = load_record(Path(config.run_dir))
    assert [row.scores["rows"] for row in record.eval_rows] == [21.0] * 3
    assert record.best is not None
    assert [("last" in row.scores) for row in record.eval_rows] == [row is record.best for row in record.eval_rows]
    assert all(row.scores["words"] >= 0 for row in record.eval_rows)
    card = RunFolder(Path(config.run_dir)).card.read_text()
    assert "by the class `my_code:Backwards` of the user's own" in card
    assert "- Rows: 21" in card
    check_predictions(tmp_path, config)


def check_predictions(folder: Path, config: RunConfig) -> None:
    """`dstrain predict` on the evaluation's sources gives its hypotheses, which the class has turned round."""
    rows = (folder / "eval.tsv").read_text().splitlines()
    (folder / "sources.txt").write_text("".join(row.split("\t")[0] + "\n" for row in rows))
    command = [sys.executable, "-m", "dstrain", "predict", config.run_dir, "--input", "sources.txt"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, env=environment)
    run = RunFolder(Path(config.run_dir))
    step = json.loads((run.path / "best" / "training_step.json").read_text())["step"]
    assert done.stdout == (run.hypotheses(step) / "hypotheses.txt").read_text()


def test_a_run_that_is_stopped_scores_the_rest_when_it_goes_on(tmp_path: Path) -> None:
    config = build(tmp_path)
    code = COUNT.replace(
        "import pathlib", "import os, time\nwhile not os.path.exists('go'): time.sleep(0.1)\nimport pathlib"
    )
    (tmp_path / "count.py").write_text(code)
    (tmp_path / "go").touch()  # for the rehearsal
    slow = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"rehearsal": False})})
    (tmp_path / "go").unlink()
    assert train_in(tmp_path, slow, world_size=1, stop_after=6) == [85]
    assert not (tmp_path / "started").exists()
    (tmp_path / "go").touch()
    assert train_in(tmp_path, slow, world_size=1) == [0]
    record = load_record(Path(config.run_dir))
    assert [row.scores["rows"] for row in record.eval_rows] == [21.0] * 3


def test_changed_code_is_another_data_set(tmp_path: Path) -> None:
    config = build(tmp_path, training__max_steps=2, evaluation={"every_steps": 2, "max_new_tokens": 12})
    assert train_in(tmp_path, config, world_size=1) == [0]
    (tmp_path / "my_code.py").write_text(CODE.replace("reversed(text.split())", "text.split()", 1))
    other = config.model_copy(update={"output_dir": str(tmp_path / "other")})
    assert train_in(tmp_path, other, world_size=1) == [0]
    first, second = (load_record(Path(each.run_dir)).info.data["train"].fingerprint for each in (config, other))
    assert first != second
