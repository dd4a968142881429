"""What the page says of files that are damaged or missing, in a real browser."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.actions import text_of
from tests.browser.browser import Page
from tests.browser.documents import make_document, make_run

Show = Callable[[dict[str, Any]], Page]


def test_damaged_files_are_counted_in_the_summary_which_leads_to_the_notes(show: Show) -> None:
    page = show(make_document(make_run("one", seed=1), notes=["Rarity is counted in all rows."]))
    assert page.evaluate("document.querySelector('.notice')") is None
    damage = ["run.json: not JSON", "metrics.jsonl: 2 broken lines"]
    page = show(make_document(make_run("one", seed=1), damage=damage, notes=["Rarity is counted in all rows."]))
    assert text_of(page, "#summary .notice") == "2 notes about damaged or missing files: see Notes"
    page.evaluate("document.querySelector('.notice a').click()")
    page.frame()
    notes = page.evaluate("document.querySelector('#notes').getBoundingClientRect().toJSON()")
    assert 0 <= notes["top"] < 900
    assert [text.lower() for text in text_of(page, "#notes").split("\n") if text] == [
        "notes", "damaged or missing files", *(text.lower() for text in damage), "other notes", "rarity is counted in all rows.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "section", "sentence"),
    [
        ({}, "summary", "No best score can be read: see Notes."),
        ({}, "hypotheses", "No hypotheses can be read: see Notes."),
        ({"unread": ["texts"]}, "hypotheses", "No hypotheses can be read: see Notes."),
        ({}, "curves", "No evaluation can be read: see Notes."),
        ({"train": {"step": [], "columns": []}}, "curves", "No step and no evaluation can be read: see Notes."),
    ],
)
def test_a_part_that_cannot_be_read_is_not_said_to_be_missing(
    show: Show, change: dict[str, Any], section: str, sentence: str
) -> None:
    run = {**make_run("one", seed=1), "metrics": [], "sets": [], "best": None, "unread": ["rows"], **change}
    page = show(make_document(run, damage=["metrics.jsonl: 4 broken line(s) skipped, the first is line 1"]))
    assert sentence in text_of(page, f"#{section}")
    assert " yet" not in text_of(page, f"#{section}")


def test_notes_leave_the_names_of_files_and_runs_as_they_are(show: Show) -> None:
    damage = ["metrics.jsonl: 2 broken line(s) skipped", "left out: hypotheses/step-2/index.txt is missing"]
    page = show(make_document(make_run("one", seed=1), damage=damage, notes=["run.json is missing", "no step"]))
    expected = [damage[0], damage[1].capitalize(), "run.json is missing", "No step"]
    listed = "[...document.querySelectorAll('#notes li')].map(each => each.innerText)"
    assert page.evaluate(listed) == expected
    page = show(make_document(make_run("one", seed=1), make_run("two", seed=2), notes=["one: no step"]))
    assert page.evaluate(listed) == ["one: no step"]
