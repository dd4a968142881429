"""The tables of the data audit: every check with its number, and an alarm where `dstrain audit` has one."""

from dataclasses import replace

from dstrain.html_report.audit_tables import build_audit_tables
from dstrain.reporting.audit import find_alarms
from dstrain.run_folder.audit import Direction, Losses
from tests.unit.run_folder.audit_cases import build_audit


def test_every_check_is_listed_with_its_number_and_places() -> None:
    tables = build_audit_tables(build_audit(checks={"copied": 0, "swapped": 1}), kind="translation")
    assert [table.title for table in tables] == [
        "training rows of train.tsv",
        "all training rows",
        "evaluation rows of eval.tsv",
        "all evaluation rows",
        "evaluation rows that are in training",
    ]
    first = {line[0]: line[1:] for line in tables[0].rows}
    assert first["rows"] == ("10,000", "note")
    assert first["the target is the source"] == ("0 (0.00%)", "ok")
    assert first["source and target look swapped"] == ("1 (0.01%): train.tsv:3", "note")
    of_all = {line[0]: line[1:] for line in tables[1].rows}
    assert of_all["left out: too long"] == ("2", "note")
    assert of_all["tokens of targets that are not in the vocabulary"] == ("25.00%", "note")


def test_a_table_has_an_alarm_for_each_that_the_audit_has() -> None:
    audit = build_audit(checks={"swapped": 40, "copied": 500}, equal=2000, pairs=100)
    tables = build_audit_tables(audit, kind="translation")
    alarms = [line[0] for table in tables for line in table.rows if line[2] == "alarm"]
    assert len(alarms) == len(find_alarms(audit, kind="translation")) == 4
    assert alarms[-1] == "normalised pair"
    assert build_audit_tables(audit, kind="parsing") != tables


def test_a_source_that_goes_the_wrong_way_has_a_table_and_rows_that_are_left_out_their_places() -> None:
    audit = build_audit()
    wrong = replace(audit.train.sources[0], directions=(Direction("en", "ko", "", {"Hangul > Latin": 900}),))
    losses = {"train": Losses({"undecodable": 92}, {"skip undecodable": ("train.tsv:8",)})}
    audit = replace(audit, train=replace(audit.train, sources=(wrong,)), losses=losses)
    tables = {table.title: table.rows for table in build_audit_tables(audit, kind="translation")}
    ((place, said, grade),) = tables["whole sources that go the wrong way"]
    assert (place, grade) == ("train.tsv", "alarm")
    assert "most sources are in Hangul" in said
    assert ("left out: undecodable", "92: train.tsv:8", "alarm") in tables["all training rows"]
