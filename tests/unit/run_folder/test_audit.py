"""The file of the audit: read back as it was written, absent in old runs, refused by name where it is damaged."""

import json
from pathlib import Path

import pytest

from dstrain.run_folder.audit import (
    Audit,
    read_audit,
    read_overlap,
    read_set,
    set_as_json,
    write_audit,
    write_overlap,
)
from dstrain.run_folder.layout import RunFolder
from tests.unit.run_folder.audit_cases import build_audit


@pytest.fixture
def audit() -> Audit:
    return build_audit(checks={"swapped": 3}, equal=4, pairs=7)


def test_an_audit_is_read_back_as_it_was_written(tmp_path: Path, audit: Audit) -> None:
    folder = RunFolder(tmp_path)
    assert read_audit(folder) is None
    write_audit(audit, path=folder.audit)
    assert read_audit(folder) == audit
    assert folder.audit in folder.files


def test_a_set_and_an_overlap_are_kept_as_they_are(tmp_path: Path, audit: Audit) -> None:
    assert read_set(json.loads(json.dumps(set_as_json(audit.train)))) == audit.train
    write_overlap(audit.overlap, path=tmp_path / "overlap.json")
    assert read_overlap(tmp_path / "overlap.json") == audit.overlap


@pytest.mark.parametrize("content", ["", "{}", '{"eval_rows": "many"}'])
def test_a_damaged_overlap_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "overlap.json").write_text(content)
    assert read_overlap(tmp_path / "overlap.json") is None
    assert read_overlap(tmp_path / "nowhere.json") is None


@pytest.mark.parametrize("kind", ["damaged", "link", "folder"])
def test_an_audit_that_cannot_be_read_is_none_so_that_reports_do_without(
    kind: str, tmp_path: Path, audit: Audit
) -> None:
    folder = RunFolder(tmp_path)
    if kind == "folder":
        folder.audit.mkdir()
    else:
        write_audit(audit, path=folder.audit)
    if kind == "damaged":
        folder.audit.write_text(folder.audit.read_text().replace('"eval_rows": 1000', '"eval_rows": "many"'))
    elif kind == "link":
        folder.audit.rename(tmp_path / "other.json")
        folder.audit.symlink_to(tmp_path / "other.json")
    assert read_audit(folder) is None
