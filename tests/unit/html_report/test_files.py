"""What is read of a run folder: all of a whole one, and the rest of a broken one, with a note on what is missing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from dstrain.errors import UserError
from dstrain.html_report.files import Notes, read_run, read_starts
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.word_counts import WordCounts, write_word_counts
from tests.unit.html_report.html_report_cases import make_failed_starts, make_killed_run, make_run


def test_a_whole_run_needs_no_note(tmp_path: Path) -> None:
    files = read_run(make_run(tmp_path / "whole").path)
    assert files.notes == Notes()
    assert [row.step for row in files.record.eval_rows] == [100, 200]
    assert files.record.status == "finished"
    assert files.name == "whole"


def test_repeated_steps_are_in_the_record_once_and_all_of_them_in_the_rows(tmp_path: Path) -> None:
    files = read_run(make_killed_run(tmp_path / "killed").path)
    steps = [row.step for row in files.record.train_rows]
    assert steps == list(range(10, 201, 10))
    assert {row.loss for row in files.record.train_rows if row.step > 100} == {4.0}
    assert max(row.step for row in files.rows if row.lease == 1) == 140
    assert [(claim.number, claim.base_step) for claim in files.claims] == [(1, 0), (2, 100)]


NOTHING_TRAINED = "no training step has been recorded"


def tear(folder: RunFolder) -> None:
    folder.metrics.write_bytes(folder.metrics.read_bytes()[:-20])


def break_a_line(folder: RunFolder) -> None:
    lines = folder.metrics.read_text().splitlines()
    folder.metrics.write_text("\n".join([*lines[:3], '{"kind": "train", "st', *lines[3:]]) + "\n")


def damage_info(folder: RunFolder) -> None:
    folder.info.write_text("{")


def damage_a_test_set(folder: RunFolder) -> None:
    scores = RunFolder(folder.test_sets / "news").scores
    scores.mkdir(parents=True)
    (scores / "step-00000100.json").write_text('{"step": 100}')


def damage_the_quarantine(folder: RunFolder) -> None:
    folder.quarantine.write_text("[]\n")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (tear, None),
        (break_a_line, "metrics.jsonl: 1 broken line(s) skipped, the first is line 4"),
        (lambda folder: folder.info.unlink(), "run.json is missing"),
        (damage_info, "run.json: not JSON"),
        (lambda folder: folder.metrics.unlink(), NOTHING_TRAINED),
        (damage_a_test_set, "scores: Field required"),
        (damage_the_quarantine, "quarantine.jsonl:1"),
        (lambda folder: folder.word_counts.write_text("{"), None),
        (lambda folder: folder.audit.write_text("{"), "audit.json cannot be read"),
    ],
)
def test_what_is_missing_or_damaged_is_left_out_with_a_note(
    change: Callable[[RunFolder], object], said: str | None, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "run")
    change(folder)
    files = read_run(folder.path)
    found = [*files.notes.damage, *files.notes.others]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]
    assert bool(files.notes.others) == (said == NOTHING_TRAINED)


def test_of_a_run_that_has_never_begun_to_train_the_starts_are_read(tmp_path: Path) -> None:
    folder = make_failed_starts(tmp_path / "failed")
    files = read_starts(folder.path)
    assert (files.name, files.run_name, files.notes) == ("failed", "failed", Notes())
    assert [claim.number for claim in files.claims] == [1, 2]
    assert {number: end.message for number, end in files.ends.items()} == {1: "no data", 2: "no weights"}


def test_a_folder_that_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run folder: it holds no config\.yaml"):
        read_run(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        read_run(tmp_path / "nowhere")
    folder = make_run(tmp_path / "run")
    folder.config.write_text("name: [")
    with pytest.raises(UserError, match=r"config\.yaml"):
        read_run(folder.path)


def test_words_that_were_counted_in_other_training_data_do_not_count(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    write_word_counts(folder, WordCounts("of training", 10, True, {"cat": 1}))
    assert read_run(folder.path).word_counts is not None
    write_word_counts(folder, WordCounts("of others", 10, True, {"cat": 1}))
    assert read_run(folder.path).word_counts is None
