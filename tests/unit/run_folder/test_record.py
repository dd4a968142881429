"""Reading a run folder back, also after kills and resumes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dstrain.config.load import dump_config
from dstrain.run_folder.reading import RunFolderError
from dstrain.run_folder.record import build_record, load_record, read_run_info, write_run_info
from dstrain.run_folder.rows import (
    EventRow,
    Row,
    append_row,
)
from tests.unit.reporting.reporting_cases import (
    parsing_config,
    parsing_row,
    run_info,
    translation_config,
)

TRAIN: dict[str, Any] = {"kind": "train", "step": 1, "epoch": 0.1, "loss": 2.0}
START: dict[str, Any] = {"kind": "event", "event": "start", "step": 0, "time": "2026-11-23T10:00:00Z", "message": None}


def write_run(folder: Path, *, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(dump_config(translation_config()), encoding="utf-8")
    write_run_info(folder, {"command": "python launch/train.py", "world_size": 2})
    for row in rows:
        append_row(folder / "metrics.jsonl", row)
    return folder


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", rows=[START, TRAIN | {"grad_norm": float("nan"), "unknown_field": 1}])
    evaluation = {"kind": "eval", "step": 1, "epoch": 0.1, "train_loss": 2.0, "scores": {"loss": 2.5, "bleu": 3.0}}
    append_row(run_dir / "metrics.jsonl", evaluation | {"groups": {"시간": {"bleu": 1.0}}})
    record = load_record(run_dir)
    assert record.config == translation_config()
    assert record.info.world_size == 2
    assert [row.loss for row in record.train_rows] == [2.0]
    assert record.train_rows[0].grad_norm != record.train_rows[0].grad_norm  # NaN stays NaN
    assert record.eval_rows[0].groups == {"시간": {"bleu": 1.0}}
    assert record.events == (EventRow("start", 0, "2026-11-23T10:00:00Z"),)


def test_the_recipe_chooses_the_metric_of_the_best_evaluation() -> None:
    rows: list[Row] = [parsing_row(1200, exact_match=0.53, loss=0.12), parsing_row(2400, exact_match=0.55, loss=0.14)]
    by_loss = parsing_config(evaluation={"best_metric": "loss"})
    assert [
        record.best.step if record.best else None
        for record in (build_record(config, info=run_info(), rows=rows) for config in (parsing_config(), by_loss))
    ] == [2400, 1200]


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([], "interrupted"),
        (["start"], "interrupted"),
        (["start", "stop"], "stopped"),
        (["start", "stop", "resume"], "interrupted"),
        (["start", "stop", "resume", "finish"], "finished"),
        (["start", "finish", "resume"], "interrupted"),
    ],
)
def test_the_last_event_says_whether_the_run_finished(events: list[Any], status: str) -> None:
    rows: list[Row] = [EventRow(event, 10) for event in events]
    assert build_record(translation_config(), info=run_info(), rows=rows).status == status


@pytest.mark.parametrize("missing", ["config.yaml", "run.json", "metrics.jsonl"])
def test_a_folder_that_is_not_a_run_folder_is_refused_and_the_missing_file_is_named(
    tmp_path: Path, missing: str
) -> None:
    run_dir = write_run(tmp_path / "run", rows=[START])
    (run_dir / missing).unlink()
    with pytest.raises(RunFolderError, match=f"not a run folder.* {missing}"):
        load_record(run_dir)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such folder"):
        load_record(tmp_path / "nowhere")


def test_a_broken_run_info_is_refused_with_the_field(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"run\.json: world_size: "):
        write_run_info(tmp_path, {"world_size": "two"})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"run\.json: not JSON"):
        read_run_info(tmp_path)


def test_run_info_is_replaced_atomically_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    write_run_info(tmp_path, {"world_size": 2, "data": {"train": {"rows": 5, "skipped": {"empty": 1}}}})
    write_run_info(tmp_path, {"world_size": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    info = read_run_info(tmp_path)
    assert (info.world_size, info.data) == (1, {})


def test_existing_exports_are_listed(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", rows=[START])
    (run_dir / "final").mkdir()
    assert load_record(run_dir).exports == {"final": None}
    (run_dir / "final" / "training_step.json").write_text('{"step": 7}')
    assert load_record(run_dir).exports == {"final": 7}


def test_reading_a_record_and_building_a_card_import_no_torch() -> None:
    script = (
        "import sys, dstrain.reporting.card, dstrain.run_folder.record;"
        "sys.exit(str([name for name in ('torch', 'deepspeed', 'transformers') if name in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
