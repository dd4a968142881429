"""The counts of words come back as they were written; damaged ones are as good as none."""

from pathlib import Path

import pytest

from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.word_counts import WordCounts, read_word_counts, write_word_counts


def test_counts_come_back_as_they_were_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_word_counts(folder) is None
    counts = WordCounts("5f3a9c", 1000, True, {"고양이": 3, "in:create_call": 0})
    write_word_counts(folder, counts)
    assert read_word_counts(folder) == counts


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"fingerprint": null, "num_rows": 1, "is_all": true, "counts": {"a": -1}}', '{"num_rows": 1}'],
)
def test_a_damaged_file_is_none(content: str, tmp_path: Path) -> None:
    RunFolder(tmp_path).word_counts.write_text(content)
    assert read_word_counts(RunFolder(tmp_path)) is None
