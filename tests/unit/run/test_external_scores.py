"""Which evaluations of a run are scored by other programs at its end."""

import sys
from pathlib import Path

from dstrain.evaluation.external import ExternalScores
from dstrain.run.external_scores import external_scores, find_evaluated, score_rest
from dstrain.run_folder.external import read_external
from tests.unit.run.run_cases import build_config, write_run
from tests.unit.run_folder.scores_cases import write

COUNT = [sys.executable, "-c", "import sys; print(len(open(sys.argv[1]).readlines()))", "{hypotheses}"]


def test_all_that_is_missing_is_scored_and_the_best_by_every_program(tmp_path: Path) -> None:
    folder = write_run(tmp_path, bleu={10: 20.0, 20: 30.0, 30: 25.0})
    for step in (10, 20):
        write(folder.path, ["a", "b"], ["a", "b"], step=step)
    assert find_evaluated(folder) == [10, 20]
    programs = {"each": {"command": COUNT, "every": "evaluation"}, "end": {"command": COUNT}}
    config = build_config(evaluation__external=programs)
    scores = external_scores(config, folder=folder)
    assert isinstance(scores, ExternalScores)
    score_rest(scores, folder=folder, best=20)
    found = {step: {name: each.value for name, each in read_external(folder, step=step).items()} for step in (10, 20)}
    assert found == {10: {"each": 2.0}, 20: {"each": 2.0, "end": 2.0}}


def test_a_recipe_without_programs_has_none(tmp_path: Path) -> None:
    assert external_scores(build_config(), folder=write_run(tmp_path)) is None
