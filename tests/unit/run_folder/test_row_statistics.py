"""Row statistics come back as they were written; a damaged or hostile file is named by its line."""

import os
from pathlib import Path

import pytest

from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import RunFolderError
from dstrain.run_folder.row_statistics import STATISTICS, differing_rows, read_statistics, statistics_lines

STEP = 7


def write(folder: Path, content: str) -> RunFolder:
    run = RunFolder(folder)
    run.hypotheses(STEP).mkdir(parents=True)
    (run.hypotheses(STEP) / STATISTICS).write_text(content)
    return run


def test_numbers_come_back_by_score_and_those_of_a_set_are_of_its_rows(tmp_path: Path) -> None:
    rows = [
        {"bleu": [9, 8, 7], "exact_match": [0.1 + 0.2], "news/bleu": [1, 2, 3]},
        {"bleu": [1, 1, 0], "exact_match": [1.0]},
        {"bleu": [4, 5, 6], "exact_match": [1 / 3], "news/bleu": [4, 5, 6]},
    ]
    run = write(tmp_path, "".join(f"{line}\n" for line in statistics_lines(rows)))
    assert read_statistics(run, step=STEP) == {
        "bleu": [(9, 8, 7), (1, 1, 0), (4, 5, 6)],
        "exact_match": [(0.1 + 0.2,), (1.0,), (1 / 3,)],
        "news/bleu": [(1, 2, 3), (4, 5, 6)],
    }


def test_an_evaluation_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    assert read_statistics(RunFolder(tmp_path), step=STEP) == {}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "JSON"),
        ("[1]", "an object"),
        ('{"bleu": []}', "at least 1"),
        ('{"bleu": [NaN]}', "finite"),
        ('{"bleu": [1e400]}', "finite"),
        ('{"bleu": [1, 2]}', "not as many numbers"),
        (f'{{"bleu": [{", ".join("1" * 200)}]}}', "at most 100"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_a_damaged_line_is_named(line: str, said: str, tmp_path: Path) -> None:
    run = write(tmp_path, f'{{"bleu": [1]}}\n{line}\n')
    with pytest.raises(RunFolderError, match=r"statistics\.jsonl:2: ") as raised:
        read_statistics(run, step=STEP)
    assert said in str(raised.value)


def test_a_pipe_and_a_link_are_not_read(tmp_path: Path) -> None:
    run = write(tmp_path, "")
    path = run.hypotheses(STEP) / STATISTICS
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="ordinary file"):
        read_statistics(run, step=STEP)
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="link"):
        read_statistics(run, step=STEP)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (["a", "b", "c"], (3, [])),
        (["a", "x", "c"], (3, [2])),
        (["a", "b"], (3, [3])),
        (["a", "b", "c", "", "d"], (5, [4, 5])),
        ([], (3, [1, 2, 3])),
    ],
)
def test_rows_that_differ_are_found_by_their_lines(
    other: list[str], expected: tuple[int, list[int]], tmp_path: Path
) -> None:
    paths = [tmp_path / "one.txt", tmp_path / "other.txt"]
    for path, lines in zip(paths, (["a", "b", "c"], other), strict=True):
        path.write_text("".join(f"{line}\n" for line in lines))
    assert differing_rows(paths[:1], paths[1:]) == expected
    assert differing_rows([paths[0], paths[0]], [paths[0], paths[1]]) == expected
