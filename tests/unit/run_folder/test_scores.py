"""Scores that other jobs have made: whose they are, where they stand, and when they count."""

import json
from pathlib import Path
from typing import Any

import pytest

from dstrain.reporting.card import build_card
from dstrain.run_folder.record import RunRecord, build_record
from dstrain.run_folder.rows import DeferredRow, EvalRow, EventRow, Row, RunFolderError
from dstrain.run_folder.scores import Scores, folder_of_set, read_deferred_scores, read_test_sets, score_file
from tests.unit.reporting.reporting_cases import RunInfo, translation_config

CONFIG = translation_config()


def write_scores(folder: Path, *, step: int, **values: Any) -> None:
    path = score_file(folder, step=step)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"step": step, "scores": {"loss": 2.0, "bleu": float(step)}, "command": None} | values))


def record_of(run_dir: Path, rows: list[Row]) -> RunRecord:
    return build_record(
        CONFIG,
        info=RunInfo(),
        rows=rows,
        find_scores=lambda due: read_deferred_scores(run_dir, due=due),
        test_sets=read_test_sets(run_dir),
    )


def test_scores_of_another_job_stand_in_the_table_at_their_step_with_the_runs_own_values(tmp_path: Path) -> None:
    write_scores(tmp_path, step=20, lease=1, hypotheses="hypotheses/step-00000020", seconds=3.0)
    rows: list[Row] = [
        EventRow("start", 0, lease=1),
        EvalRow(10, 0.5, {"bleu": 30.0}, lease=1),
        DeferredRow(20, 1.0, train_loss=1.5, lease=1),
        EvalRow(30, 1.5, {"bleu": 12.0}, lease=1),
        DeferredRow(40, 2.0, lease=1),
    ]
    record = record_of(tmp_path, rows)
    assert [row.step for row in record.eval_rows] == [10, 20, 30]
    merged = record.eval_rows[1]
    assert (merged.epoch, merged.train_loss, merged.scores["bleu"], merged.seconds) == (1.0, 1.5, 20.0, 3.0)
    assert record.pending_rows == (DeferredRow(40, 2.0, lease=1),)
    assert "evaluations deferred to other jobs have no scores yet: step 40" in build_card(record)


def test_scores_of_a_checkpoint_that_a_later_start_went_back_behind_do_not_count(tmp_path: Path) -> None:
    write_scores(tmp_path, step=20, lease=1)
    rows: list[Row] = [
        EventRow("start", 0, lease=1),
        DeferredRow(20, 1.0, lease=1),
        EventRow("resume", 15, lease=2),
    ]
    assert record_of(tmp_path, rows).eval_rows == ()
    assert record_of(tmp_path, rows).pending_rows == ()
    again: list[Row] = [*rows, DeferredRow(20, 1.0, lease=2)]
    assert [row.step for row in record_of(tmp_path, again).pending_rows] == [20]
    write_scores(tmp_path, step=20, lease=2)
    assert [row.step for row in record_of(tmp_path, again).eval_rows] == [20]


def test_a_run_that_goes_on_from_the_very_checkpoint_keeps_what_is_due(tmp_path: Path) -> None:
    rows: list[Row] = [EventRow("start", 0, lease=1), DeferredRow(20, 1.0, lease=1), EventRow("resume", 20, lease=2)]
    assert [row.step for row in record_of(tmp_path, rows).pending_rows] == [20]


@pytest.mark.parametrize("content", ["", "{", '{"step": 20}', '{"step": 21, "lease": 1, "scores": {}}'])
def test_a_broken_score_file_is_no_score(content: str, tmp_path: Path) -> None:
    path = score_file(tmp_path, step=20)
    path.parent.mkdir()
    path.write_text(content)
    assert read_deferred_scores(tmp_path, due=DeferredRow(20, 1.0, lease=1)) is None


def test_other_test_sets_stand_on_the_card_by_name_and_step(tmp_path: Path) -> None:
    data = {"places": ["flores.tsv", "demo:parsing"], "fingerprint": "a"}
    for name, step in (("flores", 40), ("flores", 5), ("news", 40)):
        folder = folder_of_set(tmp_path, name=name)
        write_scores(folder, step=step, num_rows=9, data=data, hypotheses=f"hypotheses/{step}")
    record = record_of(tmp_path, [EvalRow(40, 2.0, {"bleu": 30.0})])
    assert {name: [scores.step for scores in found] for name, found in record.test_sets.items()} == {
        "flores": [5, 40],
        "news": [40],
    }
    lines = [line for line in build_card(record).splitlines() if line.startswith("| flores")]
    assert [[cell.strip() for cell in line.split("|")[2:7]] for line in lines] == [
        ["`flores.tsv`, `demo:parsing`", "5", "9", "2.0000", "5.0000"],
        ["`flores.tsv`, `demo:parsing`", "40", "9", "2.0000", "40.0000"],
    ]
    assert "`test_sets/flores/hypotheses/40`" in lines[1]
    assert isinstance(record.test_sets["news"][0], Scores)


def test_a_broken_file_of_a_test_set_is_named(tmp_path: Path) -> None:
    write_scores(folder_of_set(tmp_path, name="flores"), step=5, scores="none")
    with pytest.raises(RunFolderError, match=r"flores/scores/step-00000005\.json.*score it again"):
        read_test_sets(tmp_path)


@pytest.mark.parametrize("name", ["../x", "", "a b", "-x", "a/b"])
def test_the_name_of_a_test_set_is_that_of_a_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--as"):
        folder_of_set(tmp_path, name=name)
