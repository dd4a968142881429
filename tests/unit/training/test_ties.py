"""Ties are found from the files of a run folder; what is missing is named."""

from pathlib import Path

import pytest

from dstrain.errors import UserError
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.scores import ScoredTexts, Scores, write_scores
from dstrain.training.ties import is_tied


def write(folder: RunFolder, hits: list[int], *, step: int) -> None:
    texts = ["x"] * len(hits)
    statistics = [{"exact_match": (float(hit),)} for hit in hits]
    write_scores(Scores(scores={}), ScoredTexts(texts, [texts], texts, texts, statistics), folder=folder, step=step)


def test_a_tie_is_a_difference_whose_interval_holds_0(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write(folder, [0] * 40, step=1)
    write(folder, [1] + [0] * 39, step=2)
    write(folder, [1] * 20 + [0] * 20, step=3)
    assert is_tied(folder, metric="exact_match", step=2, other=1)
    assert not is_tied(folder, metric="exact_match", step=3, other=1)
    assert not is_tied(folder, metric="exact_match", step=1, other=3)


def test_row_statistics_that_are_missing_or_of_other_rows_are_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write(folder, [0, 1], step=1)
    write(folder, [0, 1, 1], step=2)
    with pytest.raises(UserError, match="step-00000009 has no row statistics of `exact_match`"):
        is_tied(folder, metric="exact_match", step=1, other=9)
    with pytest.raises(UserError, match="no row statistics of `bleu`"):
        is_tied(folder, metric="bleu", step=2, other=1)
    with pytest.raises(UserError, match="has 3 rows, and step 1 2"):
        is_tied(folder, metric="exact_match", step=2, other=1)
