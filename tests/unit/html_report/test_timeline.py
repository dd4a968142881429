"""What a report says happened: attempts with their ends, marks at their steps, warnings once."""

from dataclasses import replace
from pathlib import Path

from dstrain.html_report.document import Attempt
from dstrain.html_report.files import read_run, read_starts
from dstrain.html_report.timeline import NO_WORD, list_attempts, list_marks, list_warnings
from dstrain.run_folder.outcome import RunOutcome, write_end
from dstrain.run_folder.record import QuarantinedRow, write_quarantine
from dstrain.run_folder.rows import EventRow, append_row
from tests.unit.html_report.html_report_cases import (
    make_failed_starts,
    make_killed_run,
    make_run,
    write_claim,
    write_rows,
)


def test_a_killed_and_resumed_run_has_two_attempts_with_their_steps_and_ends(tmp_path: Path) -> None:
    files = read_run(make_killed_run(tmp_path / "killed").path)
    assert list_attempts(files, state="finished") == [
        Attempt(
            "2026-11-29T10:00:00+00:00", "2026-11-29T10:50:00Z", 0, 140, "killed: SIGKILL", host="node-1", ranks=None
        ),
        Attempt("2026-11-29T11:00:00+00:00", "2026-11-29T12:00:00Z", 100, 200, "finished", host="node-2", ranks=2),
    ]


def test_an_attempt_without_a_last_word_ended_unknown_and_the_newest_one_is_what_the_run_is(tmp_path: Path) -> None:
    folder = make_killed_run(tmp_path / "killed")
    for end in folder.ends():
        end.unlink()
    lines = folder.metrics.read_text().splitlines()
    folder.metrics.write_text("\n".join(lines[:-1]) + "\n")
    first, second = list_attempts(read_run(folder.path), state="running")
    assert (first.cause, first.end, first.last_step) == (NO_WORD, None, 140)
    assert (second.cause, second.end, second.last_step) == ("running", None, 200)


def test_a_run_without_claims_has_the_attempts_of_its_events(tmp_path: Path) -> None:
    (found,) = list_attempts(read_run(make_run(tmp_path / "run").path), state="finished")
    assert found == Attempt("2026-11-29T10:00:00+00:00", "2026-11-29T11:00:00Z", 0, 200, "finished", host=None, ranks=2)


def test_starts_that_ended_before_training_are_attempts_without_steps(tmp_path: Path) -> None:
    first, second = list_attempts(read_starts(make_failed_starts(tmp_path / "failed").path), state="failed")
    assert first == Attempt(
        "2026-11-29T10:00:00+00:00", "2026-11-29T11:00:01Z", None, None, "failed: no data", host="node-1", ranks=None
    )
    assert (second.host, second.cause) == ("node-2", "failed: no weights")


def test_a_refused_start_is_an_attempt_that_did_nothing(tmp_path: Path) -> None:
    folder = make_killed_run(tmp_path / "killed")
    write_claim(folder, number=3, base_step=200)
    refused = RunOutcome("refused", 1, "seed: 1 in the checkpoint, 2 now", attempt=3, time="2026-11-29T13:00:00Z")
    write_end(folder.path, refused)
    *_, trained, last = list_attempts(read_run(folder.path), state="finished")
    assert (trained.ranks, last.ranks) == (2, None)
    assert last.cause == "refused: seed: 1 in the checkpoint, 2 now"
    assert last.last_step == 200


def test_marks_stand_at_their_steps(tmp_path: Path) -> None:
    folder = make_killed_run(tmp_path / "killed")
    (folder.checkpoints / "step-00000200.lease-2").mkdir(parents=True)
    (folder.checkpoints / "step-00000140.lease-1").mkdir()  # superseded: the run went on from step 100
    row = QuarantinedRow(5, 120, "its loss is not finite", "/data/anna/train.tsv:9", "a", "b")
    write_quarantine(folder.path, [row])
    marks = [(mark.step, mark.kind, mark.text) for mark in list_marks(read_run(folder.path))]
    assert (100, "restart", "started again from step 100 (preempted job 17)") in marks
    assert (110, "skipped", "2 step(s) skipped since step 100") in marks
    assert (120, "skipped", "a row was left out of training (…/train.tsv:9): its loss is not finite") in marks
    assert [step for step, kind, _ in marks if kind == "evaluation"] == [100, 200]
    assert [step for step, kind, _ in marks if kind == "save"] == [200]
    assert (200, "end", "finished") in marks
    assert [step for step, _, _ in marks] == sorted(step for step, _, _ in marks)


def test_warnings_of_the_run_come_first_then_those_of_steps_each_once(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", hypotheses=[], last_event=None)
    evaluation = {"kind": "eval", "epoch": 1.0, "scores": {"bleu": 1.0}, "lease": 1}
    append_row(
        folder.metrics, evaluation | {"step": 10, "warnings": ["loops", "the data in /home/anna/data are small"]}
    )
    append_row(folder.metrics, evaluation | {"step": 20, "warnings": ["loops"]})
    write_rows(folder, [EventRow("unsaved", 15, message="no room on /scratch/anna/x")])
    found = list_warnings(read_run(folder.path))
    assert [(each.step, each.text) for each in found] == [
        (None, "the data in …/data are small"),
        (10, "loops"),
        (15, "not saved: no room on …/x"),
    ]


def test_rows_that_could_not_be_written_are_a_warning_where_they_begin(tmp_path: Path) -> None:
    files = read_run(make_run(tmp_path / "run").path)
    files = replace(files, record=replace(files.record, unwritten={3: 150}))
    assert list_warnings(files)[-1].step == 150
