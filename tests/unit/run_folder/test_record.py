"""Reading a run folder back, after kills and resumes too."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dstrain.config.load import dump_config
from dstrain.run_folder.record import build_record, load_record, read_run_info, write_run_info
from dstrain.run_folder.rows import (
    EventRow,
    Row,
    RunFolderError,
    append_row,
    best_evaluation,
    drop_superseded,
    read_rows,
)
from tests.unit.reporting.reporting_cases import (
    parsing_config,
    parsing_row,
    run_info,
    train_row,
    translation_config,
    translation_row,
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


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    "torn", ['{"kind": "train", "st', '{"kind"', "{", '{"kind": "train", "step": 2, "epoch": 0.2, "loss": 1.0']
)
def test_a_torn_last_line_is_ignored_and_the_next_row_replaces_it(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "metrics.jsonl"
    append_row(path, TRAIN)
    with path.open("a") as file:
        file.write(torn)
    assert [row.step for row in read_rows(path)] == [1]
    append_row(path, TRAIN | {"step": 3})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 3]


def test_a_first_line_that_is_torn_leaves_an_empty_record(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "tr')
    assert read_rows(path) == []
    append_row(path, TRAIN)
    assert [row.step for row in read_rows(path)] == [1]


def test_a_whole_last_line_without_its_line_break_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(TRAIN))
    assert [row.step for row in read_rows(path)] == [1]
    append_row(path, TRAIN | {"step": 2})
    assert [row.step for row in read_rows(path)] == [1, 2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{broken", "no JSON"),
        ("[1, 2]", "`kind` must be one of train, eval, due, event"),
        ('{"kind": "trian", "step": 1}', "found 'trian'"),
        ('{"kind": ["train"]}', "`kind` must be one of"),
        ('{"kind": "train", "step": 1, "epoch": 0.1}', "loss: "),
        ('{"kind": "train", "step": "many", "epoch": 0.1, "loss": 1.0}', "step: "),
        ('{"kind": "event", "event": "pause", "step": 1}', "event: "),
    ],
)
def test_a_broken_line_within_the_file_is_refused_with_its_number(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{json.dumps(TRAIN)}\n{line}\n{json.dumps(TRAIN)}\n")
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl:2: ") as caught:
        read_rows(path)
    assert said in str(caught.value)


def test_rows_that_a_resume_went_back_behind_are_superseded() -> None:
    rows: list[Row] = [
        EventRow("start", 0),
        *(train_row(step) for step in (50, 100, 150)),
        translation_row(100, bleu=1.0, loss=3.0),
        translation_row(150, bleu=9.0, loss=2.0),
        EventRow("resume", 100),
        train_row(150, loss=0.25),
    ]
    record = build_record(translation_config(), info=run_info(), rows=rows)
    assert [(row.step, row.loss) for row in record.train_rows if row.step > 100] == [(150, 0.25)]
    assert [row.step for row in record.eval_rows] == [100]
    assert [event.event for event in record.events] == ["start", "resume"]


def test_a_run_started_anew_in_the_same_folder_supersedes_all_rows_before() -> None:
    rows: list[Row] = [EventRow("start", 0), train_row(50), EventRow("start", 0), train_row(25)]
    assert [row.step for row in drop_superseded(rows) if not isinstance(row, EventRow)] == [25]


def test_of_two_evaluations_at_one_step_the_later_stays() -> None:
    rows: list[Row] = [
        translation_row(100, bleu=1.0, loss=3.0),
        EventRow("finish", 100),
        EventRow("resume", 100),
        translation_row(100, bleu=2.0, loss=3.0),
    ]
    record = build_record(translation_config(), info=run_info(), rows=rows)
    assert [row.scores["bleu"] for row in record.eval_rows] == [2.0]


def test_the_best_evaluation_has_the_highest_score_and_of_equals_is_the_older() -> None:
    rows = [parsing_row(step, exact_match=score, loss=1.0) for step, score in ((1, 0.1), (2, 0.5), (3, 0.5), (4, 0.4))]
    best = best_evaluation(rows, metric="exact_match")
    assert best is not None
    assert best.step == 2


def test_loss_is_minimised_and_numbers_that_are_not_finite_never_win() -> None:
    losses = ((1, float("nan")), (2, 0.7), (3, 0.6), (4, float("-inf")), (5, 0.6))
    rows = [parsing_row(step, exact_match=0.0, loss=loss) for step, loss in losses]
    best = best_evaluation(rows, metric="loss")
    assert best is not None
    assert best.step == 3
    assert best_evaluation(rows, metric="bleu") is None
    assert best_evaluation([], metric="loss") is None


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
def test_the_last_event_tells_whether_the_run_came_to_its_end(events: list[Any], status: str) -> None:
    rows: list[Row] = [EventRow(event, 10) for event in events]
    assert build_record(translation_config(), info=run_info(), rows=rows).status == status


@pytest.mark.parametrize("missing", ["config.yaml", "run.json", "metrics.jsonl"])
def test_a_folder_that_is_no_run_is_refused_by_the_name_of_what_it_lacks(tmp_path: Path, missing: str) -> None:
    run_dir = write_run(tmp_path / "run", rows=[START])
    (run_dir / missing).unlink()
    with pytest.raises(RunFolderError, match=f"{missing} is missing"):
        load_record(run_dir)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such folder"):
        load_record(tmp_path / "nowhere")


def test_a_broken_run_info_is_refused_with_the_field(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"run\.json: world_size: "):
        write_run_info(tmp_path, {"world_size": "two"})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"run\.json: no JSON"):
        read_run_info(tmp_path)


def test_run_info_is_replaced_whole_and_leaves_no_draft(tmp_path: Path) -> None:
    write_run_info(tmp_path, {"world_size": 2, "data": {"train": {"rows": 5, "skipped": {"empty": 1}}}})
    write_run_info(tmp_path, {"world_size": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    info = read_run_info(tmp_path)
    assert (info.world_size, info.data) == (1, {})


def test_exports_that_exist_are_noted(tmp_path: Path) -> None:
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
