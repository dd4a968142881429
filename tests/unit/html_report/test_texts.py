"""The texts of evaluations as they were written; rows are matched where evaluations have other ones."""

from pathlib import Path

import pytest

from dstrain.html_report.texts import count_bytes, has_texts, read_hypotheses, read_row_statistics, read_rows
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.row_statistics import STATISTICS
from dstrain.run_folder.scores import GROUPS, HYPOTHESES, ScoredTexts, Scores, write_scores
from tests.unit.html_report.html_report_cases import BETTER, POOR, REFERENCES, SOURCES, add_evaluation, make_run
from tests.unit.html_report.html_report_cases import GROUPS as NAMES


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    rows = read_rows(folder, step=200)
    assert rows.keys == tuple((f"eval.tsv:{row + 1}", source, 0) for row, source in enumerate(SOURCES))
    assert rows.references == tuple((text,) for text in REFERENCES)
    assert rows.groups == tuple((name,) for name in NAMES)
    assert read_hypotheses(folder, step=200, keys=rows.keys) == (list(BETTER), [0, 1, 2, 3], 4)


def test_further_references_that_repeat_the_first_are_left_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    texts = ScoredTexts(["a", "b"], [["r", "s"], ["r", "t"], ["u", "t"]], ["x", "x"], ["f:1", "f:1"])
    write_scores(Scores(scores={"bleu": 1.0}), texts, folder=folder, step=3)
    rows = read_rows(folder, step=3)
    assert rows.references == (("r", "u"), ("s", "t"))
    assert rows.groups == ((), ())
    assert rows.keys == (("f:1", "x", 0), ("f:1", "x", 1))


def test_an_evaluation_of_other_rows_is_matched_by_place_and_source(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    order = [3, 0, 1]
    changed = [*SOURCES[:1], "다른 문장", *SOURCES[2:]]
    add_evaluation(
        folder,
        [POOR[row] for row in order],
        step=300,
        sources=[changed[row] for row in order],
        references=[REFERENCES[row] for row in order],
        groups=[NAMES[row] for row in order],
    )
    index = folder.hypotheses(300) / "index.txt"
    index.write_text("".join(f"eval.tsv:{row + 1}\n" for row in order))
    found, places, num_rows = read_hypotheses(folder, step=300, keys=read_rows(folder, step=200).keys)
    assert found == [POOR[0], None, None, POOR[3]]
    assert places == [1, None, None, 0]
    assert num_rows == 3


def test_torn_or_missing_files_are_an_error_that_names_the_evaluation(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    path = folder.hypotheses(200) / HYPOTHESES
    path.write_text("one\n")
    with pytest.raises(ValueError, match="step-00000200: its files have 1 and 4 rows"):
        read_hypotheses(folder, step=200, keys=[])
    (folder.hypotheses(200) / GROUPS).write_text("{}\n")
    with pytest.raises(ValueError, match=r"groups\.jsonl:1"):
        read_rows(folder, step=200)
    path.unlink()
    assert not has_texts(folder, step=200)
    with pytest.raises(OSError, match=HYPOTHESES):
        read_hypotheses(folder, step=200, keys=[])


def test_a_link_to_another_file_is_not_read(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    path = folder.hypotheses(200) / HYPOTHESES
    (tmp_path / "other").write_text("secret\n" * 4)
    path.unlink()
    path.symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="a link, or no ordinary file"):
        read_hypotheses(folder, step=200, keys=read_rows(folder, step=100).keys)


def test_damaged_row_statistics_are_as_good_as_none(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    assert set(read_row_statistics(folder, step=200)) == {"bleu", "chrf", "exact_match"}
    (folder.hypotheses(200) / STATISTICS).write_text('{"bleu": "x"}\n')
    assert read_row_statistics(folder, step=200) == {}


def test_the_room_of_texts_is_that_of_their_files(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    one, both = count_bytes(folder, steps=[200]), count_bytes(folder, steps=[100, 200])
    assert both - one == len("\n".join(POOR).encode()) + 1
    (folder.hypotheses(200) / "sources.txt").unlink()
    assert count_bytes(folder, steps=[200]) == one - len("\n".join(SOURCES).encode()) - 1
    assert count_bytes(folder, steps=[]) == 0
