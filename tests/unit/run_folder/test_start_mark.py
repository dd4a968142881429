"""The mark of a start: what is read back, and what is no mark."""

from dataclasses import replace
from pathlib import Path

import pytest

from dstrain.cluster.processes import this_process
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.ownership import empty_run_folder
from dstrain.run_folder.start_mark import mark_start, read_start_mark


def test_a_mark_names_the_process_that_wrote_it_last(tmp_path: Path) -> None:
    assert read_start_mark(tmp_path) is None
    RunFolder(tmp_path).claims.mkdir()
    RunFolder(tmp_path).start_mark.write_text('{"host": "elsewhere"')
    assert read_start_mark(tmp_path) is None
    mark_start(RunFolder(tmp_path))
    mark = read_start_mark(tmp_path)
    assert mark is not None
    assert mark.is_same(this_process())
    assert not mark.is_same(replace(mark, process_start=mark.process_start + 1))


def test_a_folder_that_cannot_be_written_is_left_to_the_lease_to_report(tmp_path: Path) -> None:
    (tmp_path / "lease").write_text("a file where the folder should be")
    mark_start(RunFolder(tmp_path))
    assert read_start_mark(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", '{"host": "a", "pid": "1"}', "\0"])
def test_what_is_no_mark_is_ignored(content: str, tmp_path: Path) -> None:
    path = RunFolder(tmp_path).start_mark
    path.parent.mkdir()
    path.write_text(content)
    assert read_start_mark(tmp_path) is None
    empty_run_folder(RunFolder(tmp_path), keep=())
    assert not path.exists()
