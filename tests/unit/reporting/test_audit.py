"""The audit in words: what is an alarm, what is said at the start, and what stands on the card."""

from dataclasses import replace

import pytest

from dstrain.reporting.audit import ALARM_SHARES, describe_audit, describe_start, find_alarms
from dstrain.reporting.card import build_card
from dstrain.run_folder.audit import CHECKS, NOT_IN_TRAINING, Losses
from tests.unit.reporting.card_cases import tables
from tests.unit.reporting.reporting_cases import translation_record
from tests.unit.run_folder.audit_cases import build_audit


@pytest.mark.parametrize("name", CHECKS)
def test_what_is_above_its_share_is_an_alarm_that_names_a_row(name: str) -> None:
    limit = int(ALARM_SHARES[name] * 10_000)
    (alarm,) = find_alarms(build_audit(checks={name: max(3, limit + 1)}), kind="translation")
    assert CHECKS[name] in alarm
    assert "train.tsv:3" in alarm
    assert find_alarms(build_audit(checks={name: limit}), kind="translation") == []


def test_a_task_within_one_language_may_copy_its_source() -> None:
    audit = build_audit(checks={"copied": 9000, "target_like_sources": 9000, "swapped": 9000})
    assert len(find_alarms(audit, kind="text")) == 1
    assert len(find_alarms(audit, kind="translation")) == 3


def test_overlap_and_repeated_rows_are_alarms_above_their_share_and_targets_alone_never() -> None:
    assert find_alarms(build_audit(pairs=20, equal=1000), kind="parsing") == []
    repeated, overlap = find_alarms(build_audit(pairs=21, equal=1001), kind="parsing")
    assert "1,001 (10.01%)" in repeated
    assert "data.rules.duplicates=skip" in repeated
    assert "21 (2.10%)" in overlap
    assert "data.rules.overlap=skip_train" in overlap


def test_the_start_says_what_is_in_training_in_a_line_and_nothing_of_clean_data() -> None:
    assert describe_start(build_audit()) == []
    held, repeated = describe_start(build_audit(pairs=3, sources=4, equal=5))
    assert held.startswith("4 (0.40%) of the evaluation rows have a source that is in training (4 letter for letter)")
    assert (
        repeated == "5 (0.05%) of the training rows repeat an earlier one letter for letter, 5 but for case and spaces"
    )


def test_the_whole_audit_names_rows_on_both_sides() -> None:
    lines = "\n".join(describe_audit(build_audit(checks={"numbers": 9}, equal=2, pairs=7), kind="translation"))
    assert "source tokens: 2 to 31, mean 8.5, half up to 8, 90 % up to 12, 99 % up to 18" in lines
    assert "source and target have other numbers: 9 (0.09%) (train.tsv:3 and 8 more)" in lines
    assert "2 training rows repeat an earlier one, letter for letter: train.tsv:9 and train.tsv:2" in lines
    assert "normalised pair   7 (0.70%): eval.tsv:4 and train.tsv:5" in lines
    assert "2 training rows left out: over the limit of the task" in lines
    assert "4 training sources over the limit of the task, and cut" in lines
    assert "25.00% of the tokens of training targets are not in the vocabulary" in lines
    assert "nothing alarming" in lines


def test_the_card_shows_the_overlap_and_both_scores() -> None:
    groups = {NOT_IN_TRAINING: {"bleu": 38.25, "num_rows": 978}}
    record = translation_record()
    rows = tuple(replace(row, groups=groups, num_rows=1000) for row in record.eval_rows)
    card = build_card(replace(record, eval_rows=rows, audit=build_audit(pairs=20, sources=22, checks={"swapped": 50})))
    (overlap,) = [each for each in tables(card) if each[0][0] == "Evaluation rows in training"]
    assert overlap[2] == ["normalised", "22 (2.2 %)", "300 (30.0 %)", "20 (2.0 %)"]
    assert (
        "22 of the 1,000 evaluation rows (2.2 %) have a source that is in training. Without them: `bleu` 38.2500."
        in card
    )
    assert "source and target look swapped" in card
    assert "`audit.json`" in card
    checks = dict(next(each for each in tables(card) if each[0] == ["Check", "Result"])[1:])
    assert checks["Train/evaluation overlap"].startswith("22 of 1,000 evaluation rows (2.2 %)")
    assert checks["Language check of the data"].startswith("training rows: source and target look swapped: 50")


def test_the_card_of_an_old_run_says_that_nothing_was_checked() -> None:
    card = build_card(translation_record())
    checks = dict(next(each for each in tables(card) if each[0] == ["Check", "Result"])[1:])
    assert checks["Train/evaluation overlap"].startswith("not checked")
    assert "Evaluation rows in training" not in card


def test_rows_that_are_left_out_are_named_and_an_alarm_where_they_are_many() -> None:
    audit = build_audit()
    lost = Losses({"undecodable": 92, "empty": 11, "duplicate": 5000}, {"skip undecodable": ("train.tsv:8",)})
    audit = replace(audit, losses={"train": lost})
    (alarm,) = find_alarms(audit, kind="translation")
    assert alarm == "92 training rows are left out: not UTF-8, or not as a row must be (train.tsv:8 and 91 more)"
    lines = list(describe_audit(audit, kind="translation"))
    assert "  11 training rows left out: a side is empty" in lines
    assert sum("not UTF-8" in line for line in lines) == 2


def test_a_rule_that_ends_a_run_is_named_last() -> None:
    *_, title, line = describe_audit(replace(build_audit(), ending=("undecodable",)), kind="translation")
    assert title == "look at:"
    assert line == "  data.rules.undecodable is `error`: a run with these data ends before its first step"


def test_nothing_is_scored_without_rows_that_are_all_in_training() -> None:
    (line,) = describe_start(build_audit(sources=1000))
    assert line.startswith("1,000 (100.00%) of the evaluation rows")
    assert "nothing is left to score without them" in line
    assert NOT_IN_TRAINING not in line
    (line,) = describe_start(build_audit(sources=10), max_rows=10)
    assert "nothing is left to score" in line
    assert NOT_IN_TRAINING in describe_start(build_audit(sources=10), max_rows=11)[0]
    card = build_card(replace(translation_record(), audit=build_audit(sources=1000)))
    assert "All 1,000 evaluation rows have a source that is in training: no score is without them." in card
