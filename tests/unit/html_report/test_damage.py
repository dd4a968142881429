"""No damage to the files of a run folder is a traceback, only notes; a configuration that cannot be read is refused."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dstrain.errors import UserError
from dstrain.html_report.document import Document, encode
from dstrain.html_report.files import read_run
from dstrain.html_report.report import build_document
from dstrain.run_folder.audit import write_audit
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import QuarantinedRow, write_quarantine
from dstrain.run_folder.word_counts import WordCounts, write_word_counts
from tests.unit.html_report.html_report_cases import BETTER, add_evaluation, make_killed_run
from tests.unit.run_folder.audit_cases import build_audit

FILES = (
    "config.yaml",
    "run.json",
    "metrics.jsonl",
    "audit.json",
    "word_counts.json",
    "quarantine.jsonl",
    "lease/00000001.json",
    "lease/00000002.end",
    "hypotheses/step-00000200/hypotheses.txt",
    "hypotheses/step-00000200/index.txt",
    "hypotheses/step-00000200/sources.txt",
    "hypotheses/step-00000200/references.txt",
    "hypotheses/step-00000200/statistics.jsonl",
    "hypotheses/step-00000200/groups.jsonl",
    "test_sets/news/scores/step-00000200.json",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that has every file which a report reads."""
    folder = make_killed_run(tmp_path_factory.mktemp("runs") / "run")
    add_evaluation(folder.test_set("news"), BETTER, step=200)
    write_audit(build_audit(), path=folder.audit)
    write_quarantine(folder.path, [QuarantinedRow(5, 120, "not finite", "train.tsv:9", "a", "b")])
    write_word_counts(folder, WordCounts("of training", 10, True, {"cat": 1}))
    return folder


def build(run: RunFolder) -> Document:
    return build_document([read_run(run.path)], created="now")


def test_every_file_is_there_and_read_without_a_note(run: RunFolder) -> None:
    assert [name for name in FILES if not (run.path / name).is_file()] == []
    assert (build(run).damage, build(run).notes) == ([], [])


@given(
    name=st.sampled_from(FILES),
    at=st.integers(0, 4000),
    patch=st.one_of(
        st.binary(max_size=8),
        st.sampled_from([b"NaN", b"-1", b"1e999", b"9" * 400, b"null", b"{}", b"\n", b"[" * 9999]),
    ),
    cut=st.sampled_from([0, 1, 5, 12, 10_000]),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_to_a_file_crashes_the_report(run: RunFolder, name: str, at: int, patch: bytes, cut: int) -> None:
    path = run.path / name
    whole = path.read_bytes()
    at %= len(whole)
    try:
        path.write_bytes(whole[:at] + patch + whole[at + cut :])
        with contextlib.suppress(UserError) if name == "config.yaml" else contextlib.nullcontext():
            json.loads(encode(build(run)))
    finally:
        path.write_bytes(whole)


def test_a_page_is_told_what_is_there_and_cannot_be_read(tmp_path: Path) -> None:
    folder = make_killed_run(tmp_path / "run")
    assert build(folder).runs[0].unread == []
    (folder.hypotheses(200) / "index.txt").write_text("")
    assert build(folder).runs[0].unread == ["texts"]
    folder.metrics.write_text("no row\n")
    document = build(folder)
    assert document.runs[0].unread == ["rows"], "no texts are looked for"
    assert document.notes == [], "it is not said that no step has been recorded"


@pytest.mark.parametrize("name", [name for name in FILES if name != "config.yaml"])
def test_a_folder_or_nothing_in_place_of_a_file_does_not_crash_the_report(
    run: RunFolder, name: str, tmp_path: Path
) -> None:
    path, aside = run.path / name, tmp_path / "aside"
    path.rename(aside)
    try:
        json.loads(encode(build(run)))
        path.mkdir()
        json.loads(encode(build(run)))
        path.rmdir()
    finally:
        aside.rename(path)
