"""The rows of a set with their hypotheses and scores by evaluation, whole or in as much room as there is."""

from pathlib import Path

import pytest

from dstrain.html_report import text_sets
from dstrain.html_report.document import TextSet
from dstrain.html_report.files import Notes, read_run
from dstrain.html_report.text_sets import build_set, list_sets, note_missing
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.row_statistics import STATISTICS
from dstrain.run_folder.scores import GROUPS, HYPOTHESES
from tests.unit.html_report.html_report_cases import (
    BETTER,
    POOR,
    REFERENCES,
    SOURCES,
    add_evaluation,
    evaluate,
    make_run,
)
from tests.unit.reporting.reporting_cases import translation_config

ROOM = 1 << 20


def build(
    folder: RunFolder, *, max_bytes: int = ROOM, counts: dict[str, int] | None = None
) -> tuple[TextSet | None, Notes]:
    files = read_run(folder.path)
    return build_set(list_sets(files)[0], config=files.record.config, counts=counts or {}, max_bytes=max_bytes)


def whole(folder: RunFolder, **options: int) -> TextSet:
    found, notes = build(folder, **options)
    assert found is not None
    assert notes == Notes()
    return found


def test_a_set_has_every_row_with_what_each_evaluation_made_of_it(tmp_path: Path) -> None:
    found = whole(make_run(tmp_path / "run"))
    assert (found.name, found.num_rows, found.is_sampled) == ("evaluation", 4, False)
    assert list(found.rows.source) == list(SOURCES)
    assert [list(texts) for texts in found.rows.reference] == [[text] for text in REFERENCES]
    assert found.rows.group == ["animals", "animals", "weather", "food"]
    assert found.rows.length == [6, 6, 4, 4]
    assert [each.step for each in found.evaluations] == [100, 200]
    assert found.hypotheses == [list(texts) for texts in zip(POOR, BETTER, strict=True)]
    assert [score.name for score in found.evaluations[1].scores] == ["bleu", "gen_len", "chrf", "exact_match", "loss"]


def test_the_score_of_each_row_is_that_of_its_own_numbers(tmp_path: Path) -> None:
    found = whole(make_run(tmp_path / "run"))
    assert (found.score_name, found.score_higher_is_better) == ("chrF", True)
    assert [scores[1] for scores in found.row_scores][1:3] == [100.0, 100.0]
    assert found.row_scores[3][0] == 0.0
    assert all(low is not None and high is not None and low <= high for low, high in found.row_scores)


def test_by_exact_match_the_rows_count_as_the_score_of_the_evaluation_does(tmp_path: Path) -> None:
    config = translation_config(
        evaluation={"every_steps": 100, "best_metric": "exact_match", "metrics": ["exact_match"]}
    )
    found = whole(make_run(tmp_path / "run", config=config))
    scores, _ = evaluate(BETTER)
    assert sum(each[1] or 0.0 for each in found.row_scores) / 4 == scores.scores["exact_match"] == 0.5


def test_rarity_is_the_count_of_the_rarest_word_or_unknown(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    counts = {"it": 5, "rains": 1, "in": 9, "spring": 3}
    found, _ = build(folder, counts=counts)
    assert found is not None
    assert found.rows.rarity == [None, None, 1, None]
    assert whole(folder).rows.rarity == [None] * 4


def test_evaluations_of_earlier_versions_have_neither_groups_nor_row_scores(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    for step in (100, 200):
        (folder.hypotheses(step) / STATISTICS).unlink()
        (folder.hypotheses(step) / GROUPS).unlink()
    found = whole(folder)
    assert found.rows.group == [None] * 4
    assert found.row_scores == [[None, None]] * 4
    assert found.score_name == "BLEU"


def test_a_damaged_evaluation_is_left_out_with_a_note_and_the_others_stay(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder.hypotheses(100) / HYPOTHESES).write_text("torn\n")
    found, notes = build(folder)
    assert found is not None
    assert [each.step for each in found.evaluations] == [200]
    assert found.hypotheses == [[text] for text in BETTER]
    text = (
        "the texts of step 100 of `evaluation` are left out: step-00000100: its files have 1 and 4 rows: score it again"
    )
    assert notes == Notes(damage=(text,))


def test_a_set_whose_rows_cannot_be_read_is_left_out_with_a_note(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder.hypotheses(200) / "references.txt").unlink()
    found, notes = build(folder)
    assert found is None
    (note,) = notes.damage
    assert note.startswith("the texts of `evaluation` are left out: ")
    assert notes.others == ()


def test_where_there_is_no_room_rows_are_drawn_and_a_note_says_so(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    files = read_run(folder.path)
    (rows,) = list_sets(files)
    found, notes = build(folder, max_bytes=3 * rows.num_bytes // 5)
    assert found is not None
    assert (len(found.hypotheses), len(found.row_scores), len(found.rows.id)) == (2, 2, 2)
    assert (found.num_rows, found.is_sampled) == (4, True)
    text = "of the 4 rows of `evaluation` 2 are shown, drawn by a hash; scores and intervals are of all rows"
    assert notes == Notes(others=(text,))
    by_source = dict(zip(SOURCES, BETTER, strict=True))
    assert [texts[1] for texts in found.hypotheses] == [by_source[source] for source in found.rows.source]


def test_of_many_evaluations_the_first_the_last_and_the_best_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_sets, "MAX_EVALUATIONS", 3)
    folder = make_run(tmp_path / "run", hypotheses=[POOR, POOR, POOR, BETTER, POOR, POOR])
    files = read_run(folder.path)
    sets = list_sets(files)
    assert [each.step for each in sets[0].scored] == [100, 400, 600]
    (note,) = note_missing(files, sets).others
    assert note.startswith("of 6 evaluations of `evaluation` the texts of 3 are shown")


def test_a_test_set_is_a_set_of_its_own(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    add_evaluation(folder.test_set("news"), BETTER, step=200, place="/home/anna/news.tsv")
    files = read_run(folder.path)
    own, news = list_sets(files)
    assert (own.name, news.name) == ("evaluation", "news")
    found, _ = build_set(news, config=files.record.config, counts={}, max_bytes=ROOM)
    assert found is not None
    assert found.rows.id[0] == "…/news.tsv:1"
    assert found.hypotheses == [[text] for text in BETTER]
