"""Scores of other programs beside those of an evaluation."""

from pathlib import Path

from dstrain.run_folder.external import ExternalScore, add_external, read_external, with_external
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.record import load_record
from dstrain.run_folder.scores import Scores
from tests.unit.run.run_cases import write_run
from tests.unit.run_folder.scores_cases import write


def test_a_score_stands_beside_those_of_its_step_with_its_command_as_signature(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    add_external(folder, step=5, name="comet", score=ExternalScore(0.8, "comet-score"))
    add_external(folder, step=5, name="other", score=ExternalScore(3.0, "other"))
    own = Scores(scores={"bleu": 20.0}, signatures={"bleu": "x"})
    found = with_external(own, folder=folder, step=5)
    assert found.scores == {"bleu": 20.0, "comet": 0.8, "other": 3.0}
    assert found.signatures == {"bleu": "x", "comet": "comet-score", "other": "other"}
    assert with_external(own, folder=folder, step=6) == own


def test_a_damaged_file_is_no_score(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    add_external(folder, step=5, name="comet", score=ExternalScore(0.8, "comet-score"))
    folder.external_file(5).write_text('{"comet": {"value": "much"}}')
    assert read_external(folder, step=5) == {}


def test_a_record_has_them_and_another_evaluation_of_the_step_has_not(tmp_path: Path) -> None:
    folder = write_run(tmp_path, bleu={10: 20.0})
    add_external(folder, step=10, name="comet", score=ExternalScore(0.8, "comet-score"))
    (row,) = load_record(folder.path).eval_rows
    assert (row.scores["comet"], row.signature_of("comet")) == (0.8, "comet-score")
    write(folder.path, ["a"], ["a"], step=10)
    assert read_external(folder, step=10) == {}
