"""A report holds what its run folders say, in one page; what is missing costs a note, and other files are never replaced."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dstrain.errors import UserError
from dstrain.html_report import report
from dstrain.html_report.document import Document
from dstrain.html_report.files import read_run, read_starts
from dstrain.html_report.report import build_document, check_output, write_report
from dstrain.reporting.standing import Standing
from dstrain.run_folder.audit import write_audit
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.rows import append_row
from dstrain.run_folder.word_counts import WordCounts, write_word_counts
from tests.unit.html_report.html_report_cases import BETTER, POOR, decode, make_failed_starts, make_killed_run, make_run
from tests.unit.reporting.reporting_cases import translation_config
from tests.unit.run_folder.audit_cases import build_audit

NOW = "2026-11-29T20:00:00+00:00"


def build(*folders: RunFolder) -> Document:
    return build_document([read_run(folder.path) for folder in folders], created=NOW)


def test_the_page_holds_the_document_of_the_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "one")
    write_audit(build_audit(), path=folder.audit)
    size = write_report(build(folder), path=folder.report)
    assert folder.report.stat().st_size == size
    found = decode(folder.report)
    assert (found["version"], found["created"], found["damage"], found["notes"]) == (1, NOW, [], [])
    (run,) = found["runs"]
    assert (run["name"], run["folder"], run["state"]) == ("one", "one", "finished")
    assert run["best"] == {"metric": "bleu", "step": 200, "set": "evaluation"}
    scores = [row.scores["bleu"] for row in read_run(folder.path).record.eval_rows]
    assert run["metrics"][0]["curves"][0]["value"] == scores
    assert run["sets"][0]["hypotheses"] == [list(texts) for texts in zip(POOR, BETTER, strict=True)]
    assert run["train"]["step"] == list(range(10, 201, 10))
    assert len(run["audit"]) == 5


def test_runs_of_one_name_are_named_with_their_folders(tmp_path: Path) -> None:
    config = translation_config(name="same")
    runs = [make_run(tmp_path / each, config=config) for each in ("one", "two")]
    assert [run.name for run in build(runs[0]).runs] == ["same"]
    names = [run.name for run in build(*runs, make_run(tmp_path / "three")).runs]
    assert names == ["same (one)", "same (two)", "three"]


def test_a_resumed_run_has_each_step_once_and_a_mark_where_it_started_again(tmp_path: Path) -> None:
    (run,) = build(make_killed_run(tmp_path / "killed")).runs
    assert run.train.step == list(range(10, 201, 10))
    loss = next(column for column in run.train.columns if column.name == "loss")
    assert list(loss.values) == [5.0] * 10 + [4.0] * 10
    assert [mark.step for mark in run.marks if mark.kind == "restart"] == [100]
    assert len(run.attempts) == 2


def test_nothing_of_the_machine_but_the_name_of_its_host_is_in_the_document(tmp_path: Path) -> None:
    folder = make_killed_run(tmp_path / "killed")
    content = json.dumps(decode_of(folder), ensure_ascii=False)
    assert "node-1" in content
    assert "anna" not in content
    assert str(tmp_path) not in content


def decode_of(folder: RunFolder) -> dict[str, Any]:
    write_report(build(folder), path=folder.report)
    return decode(folder.report)


def test_a_title_and_texts_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    folder = make_run(tmp_path / "run", hypotheses=[(evil, *POOR[1:])])
    document = build(folder)
    runs = [replace(run, name=f"</title>{evil}") for run in document.runs]
    write_report(replace(document, runs=runs), path=folder.report)
    page = folder.report.read_text()
    assert evil not in page
    assert decode(folder.report)["runs"][0]["sets"][0]["hypotheses"][0] == [evil]


@pytest.mark.parametrize("part", ["metrics.jsonl", "run.json", "scores", "hypotheses", "lease"])
def test_a_run_that_lacks_a_part_still_has_a_report(part: str, tmp_path: Path) -> None:
    folder = make_killed_run(tmp_path / "run")
    path = folder.path / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    document = build(folder)
    assert bool(document.damage) == (part == "run.json")
    assert bool(document.notes) == (part in ("metrics.jsonl", "hypotheses"))
    write_report(document, path=folder.report)
    assert decode(folder.report)["runs"][0]["name"] == "run"


def test_several_runs_are_in_the_order_given_and_notes_name_their_run(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / name) for name in ("second", "first")]
    folders[1].info.unlink()
    document = build(*folders)
    assert [run.folder for run in document.runs] == ["second", "first"]
    assert any(note.startswith("first: run.json is missing") for note in document.damage)


def test_notes_on_damaged_files_name_no_folder_of_the_machine(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder.hypotheses(200) / "references.txt").unlink()
    folder.info.write_text("{")
    document = build(folder)
    assert len(document.damage) == 2
    assert str(tmp_path) not in "".join(document.damage)


def test_how_a_run_ended_is_what_its_rows_say_unless_more_is_known(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", last_event=None)
    append_row(folder.metrics, {"kind": "event", "event": "stop", "step": 200, "message": "received SIGTERM"})
    (run,) = build(folder).runs
    assert (run.state, run.why, run.advice) == ("stopped", "received SIGTERM", "")
    standing = Standing("failed", f"no room on {tmp_path}/scratch", "free some space")
    (run,) = build_document([read_run(folder.path)], created=NOW, standings={folder.path: standing}).runs
    assert (run.state, run.why, run.advice) == ("failed", "no room on …/scratch", "free some space")
    assert ("state", "failed") in run.summary


def test_a_run_that_has_never_begun_to_train_is_shown_with_its_starts_beside_others(tmp_path: Path) -> None:
    failed, trained = make_failed_starts(tmp_path / "failed"), make_run(tmp_path / "trained")
    files = [read_starts(failed.path), read_run(trained.path)]
    document = build_document(
        files, created=NOW, standings={failed.path: Standing("failed", "no weights", "mend that")}
    )
    write_report(document, path=tmp_path / "report.html")
    one, two = decode(tmp_path / "report.html")["runs"]
    assert (one["name"], one["state"], one["why"], one["advice"]) == ("failed", "failed", "no weights", "mend that")
    assert [attempt["cause"] for attempt in one["attempts"]] == ["failed: no data", "failed: no weights"]
    assert (one["train"], one["metrics"], one["best"]) == ({"step": [], "columns": []}, [], None)
    assert (two["name"], two["state"]) == ("trained", "finished")


def test_runs_share_the_room_and_show_the_same_rows_wherever_their_data_lay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [make_run(tmp_path / name) for name in ("one", "two")]
    for folder in folders:
        for path in folder.all_hypotheses.glob("*/index.txt"):
            path.write_text(path.read_text().replace("eval.tsv", f"/data/of/{folder.path.name}/eval.tsv"))
    size = sum(path.stat().st_size for path in folders[0].hypotheses(200).glob("*.txt"))
    monkeypatch.setattr(report, "MAX_TEXT_BYTES", size)
    one, two = (run.sets[0] for run in build(*folders).runs)
    assert one.is_sampled
    assert one.rows.id == two.rows.id


def test_what_was_counted_of_the_training_data_is_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    write_audit(build_audit(), path=folder.audit)
    counts = WordCounts("of training", 3, False, {"it": 5, "rains": 1, "in": 9, "spring": 3})
    write_word_counts(folder, counts)
    assert build(folder).notes == ["how rare a word is in training was counted in the first 3 rows"]
    write_word_counts(folder, replace(counts, is_all=True))
    assert build(folder).notes == []


def test_only_a_report_is_replaced(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    check_output(folder.report)
    write_report(build(folder), path=folder.report)
    check_output(folder.report)
    folder.report.write_text("<!doctype html>my own page")
    with pytest.raises(UserError, match=r"report\.html exists and is no report"):
        check_output(folder.report)
    with pytest.raises(UserError, match="exists and is no report"):
        check_output(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        check_output(tmp_path / "nowhere" / "report.html")
    (tmp_path / "link").symlink_to(folder.report)
    with pytest.raises(UserError, match="exists and is no report"):
        check_output(tmp_path / "link")
