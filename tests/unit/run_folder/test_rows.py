"""The rows of metrics.jsonl: torn by kills, superseded by later attempts, the best among them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dstrain.run_folder.reading import RunFolderError
from dstrain.run_folder.record import build_record
from dstrain.run_folder.rows import (
    DeferredRow,
    EvalRow,
    EventRow,
    Row,
    TrainRow,
    append_row,
    as_json,
    best_evaluation,
    drop_superseded,
    read_rows,
    read_sound_rows,
    untied,
)
from tests.unit.reporting.reporting_cases import parsing_row, run_info, train_row, translation_config, translation_row

TRAIN: dict[str, Any] = {"kind": "train", "step": 1, "epoch": 0.1, "loss": 2.0}


@pytest.mark.parametrize(
    "row",
    [
        TrainRow(1, 0.1, 2.0, grad_norm=0.5),
        EvalRow(step=1, epoch=0.1, scores={"bleu": 3.0}, groups={"a": {"bleu": 1.0}}, warnings=("w",)),
        DeferredRow(1, 0.1, train_loss=2.0),
        EventRow("start", 0, "2026-11-23T10:00:00Z", "a message"),
    ],
)
def test_a_row_of_every_kind_is_read_as_it_was_written(row: Row, tmp_path: Path) -> None:
    append_row(tmp_path / "metrics.jsonl", as_json(row))
    assert read_rows(tmp_path / "metrics.jsonl") == [row]


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


def test_a_torn_first_line_is_an_empty_record(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "tr')
    assert read_rows(path) == []
    append_row(path, TRAIN)
    assert [row.step for row in read_rows(path)] == [1]


def test_a_complete_last_line_without_its_line_break_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(TRAIN))
    assert [row.step for row in read_rows(path)] == [1]
    append_row(path, TRAIN | {"step": 2})
    assert [row.step for row in read_rows(path)] == [1, 2]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{broken", "not JSON"),
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


def test_rows_after_the_step_that_an_attempt_resumed_from_are_superseded() -> None:
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


def test_a_run_started_again_in_the_same_folder_supersedes_all_earlier_rows() -> None:
    rows: list[Row] = [EventRow("start", 0), train_row(50), EventRow("start", 0), train_row(25)]
    assert [row.step for row in drop_superseded(rows) if not isinstance(row, EventRow)] == [25]


def test_the_later_of_two_evaluations_at_one_step_is_kept() -> None:
    rows: list[Row] = [
        translation_row(100, bleu=1.0, loss=3.0),
        EventRow("finish", 100),
        EventRow("resume", 100),
        translation_row(100, bleu=2.0, loss=3.0),
    ]
    record = build_record(translation_config(), info=run_info(), rows=rows)
    assert [row.scores["bleu"] for row in record.eval_rows] == [2.0]


def test_evaluations_from_before_a_change_of_what_scores_mean_do_not_compete() -> None:
    def evaluation(step: int, bleu: float, *, lease: int) -> EvalRow:
        return replace(translation_row(step, bleu=bleu, loss=1.0), lease=lease)

    rows: list[Row] = [
        EventRow("start", 0, lease=1),
        evaluation(100, 9.0, lease=1),
        EventRow("resume", 100, lease=2, changes=("num_beams",), scores_since=2),
        evaluation(150, 1.0, lease=2),
        EventRow("resume", 150, lease=3, scores_since=2),
        evaluation(200, 2.0, lease=3),
    ]
    record = build_record(translation_config(), info=run_info(), rows=rows)
    assert [row.step for row in record.eval_rows] == [100, 150, 200]
    assert [row.step for row in record.competing] == [150, 200]
    assert record.best is not None
    assert record.best.step == 200
    undone = build_record(translation_config(), info=run_info(), rows=[*rows, EventRow("resume", 100, lease=4)])
    assert [row.step for row in undone.competing] == [100]


def test_the_best_evaluation_has_the_highest_score_and_is_the_older_of_equal_ones() -> None:
    rows = [parsing_row(step, exact_match=score, loss=1.0) for step, score in ((1, 0.1), (2, 0.5), (3, 0.5), (4, 0.4))]
    best = best_evaluation(rows, metrics=("exact_match",))
    assert best is not None
    assert best.step == 2


def test_loss_is_minimised_and_numbers_that_are_not_finite_are_never_the_best() -> None:
    losses = ((1, float("nan")), (2, 0.7), (3, 0.6), (4, float("-inf")), (5, 0.6))
    rows = [parsing_row(step, exact_match=0.0, loss=loss) for step, loss in losses]
    best = best_evaluation(rows, metrics=("loss",))
    assert best is not None
    assert best.step == 3
    assert best_evaluation(rows, metrics=("bleu",)) is None
    assert best_evaluation([], metrics=("loss",)) is None


def test_among_evaluations_with_the_same_best_metric_the_next_ones_decide_and_the_loss_last() -> None:
    rows = [
        translation_row(step, bleu=0.0, loss=loss, scores={"bleu": 0.0, "chrf": chrf, "loss": loss})
        for step, chrf, loss in ((1, 5.0, 1.0), (2, 9.0, 3.0), (3, 9.0, 2.0), (4, 9.0, 2.0), (5, 8.0, 0.5))
    ]
    best = best_evaluation(rows, metrics=translation_config().ranking)
    assert best is not None
    assert best.step == 3


def test_a_tied_evaluation_is_not_among_those_that_the_best_is_one_of() -> None:
    rows = [EvalRow(step=step, epoch=1.0, scores={"bleu": 10.0 + step}, is_tied=step == 3) for step in (1, 2, 3)]
    best = best_evaluation(untied(rows), metrics=["bleu"])
    assert best is not None
    assert best.step == 2


def test_rows_that_can_be_read_are_kept_with_a_note_on_the_others(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_sound_rows(path) == ([], [])
    lines = [json.dumps(TRAIN | {"step": step}) for step in (1, 2, 2**63)]
    path.write_text("\n".join([lines[0], '{"kind": "train"}', "[", lines[2], lines[1], '{"kind": "tr']))
    rows, notes = read_sound_rows(path)
    assert [row.step for row in rows] == [1, 2]
    assert notes == ["metrics.jsonl: 3 broken line(s) skipped, the first is line 2"]
    path.unlink()
    path.mkdir()
    assert read_sound_rows(path)[1][0].startswith("metrics.jsonl cannot be read: ")
