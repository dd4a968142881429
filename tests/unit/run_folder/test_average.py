"""The average in a run folder: read back with its steps, or absent."""

from pathlib import Path

from dstrain.run_folder.average import AVERAGED, read_average, write_averaged_steps
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.scores import ScoredTexts, Scores, write_scores


def test_an_average_is_its_steps_and_scores(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_average(folder) is None
    folder.average.path.mkdir()
    write_averaged_steps(folder.average.path, steps=[4, 8])
    assert read_average(folder) is None  # not scored yet
    write_scores(Scores(scores={"bleu": 3.5}), ScoredTexts([], [], [], []), folder=folder.average, step=8)
    average = read_average(folder)
    assert average is not None
    assert (average.steps, average.scores.scores) == ((4, 8), {"bleu": 3.5})
    (folder.average.path / AVERAGED).write_text("[]")
    assert read_average(folder) is None
