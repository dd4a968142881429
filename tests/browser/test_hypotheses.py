"""Hypotheses in a real browser: searched, sorted, compared, and every count equal to one made here in Python."""

import random
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.actions import choose, click, read_table, rows_shown, search, show_view, status, text_of
from tests.browser.browser import Page
from tests.browser.documents import make_document, make_run

Show = Callable[[dict[str, Any]], Page]

LENGTHS, RARITIES = [1, 5, 10, 15, 20, 30, 40, 60], [0, 1, 2, 5, 10, 100, 1000]


def test_the_worst_rows_of_the_best_evaluation_come_first(show: Show) -> None:
    run = make_run("one", seed=1)
    page = show(make_document(run))
    scores = [line[-1] for line in run["sets"][0]["row_scores"]]
    worst = sorted(range(len(scores)), key=lambda row: (scores[row], row))[:25]
    assert rows_shown(page) == [f"eval.tsv:{row + 1}" for row in worst]
    assert status(page) == "Rows 1 to 25 of 120"


def test_a_head_sorts_and_a_second_click_turns_around(show: Show) -> None:
    run = make_run("one", seed=1)
    page = show(make_document(run))
    lengths = run["sets"][0]["rows"]["length"]
    click(page, "Length")
    assert rows_shown(page) == [
        f"eval.tsv:{row + 1}" for row in sorted(range(120), key=lambda row: (lengths[row], row))[:25]
    ]
    click(page, "Length")
    assert rows_shown(page) == [
        f"eval.tsv:{row + 1}" for row in sorted(range(120), key=lambda row: (-lengths[row], row))[:25]
    ]
    assert page.evaluate("document.querySelector('.rows th[aria-sort=descending]').innerText").startswith("Length")
    rarity = run["sets"][0]["rows"]["rarity"]
    click(page, "Rarest word")
    click(page, "Rarest word")
    click(page, "Last")
    assert [row for row in rows_shown(page) if rarity[int(row.split(":")[1]) - 1] is None] == rows_shown(page)[
        -12:
    ]  # no value: last


def test_a_search_finds_rows_in_source_reference_and_hypotheses(show: Show) -> None:
    run = make_run("one", seed=1)
    rows = run["sets"][0]
    page = show(make_document(run))
    search(page, "SATZ 117:")
    assert rows_shown(page) == ["eval.tsv:117"]
    rows_with = [
        row
        for row in range(120)
        if any(
            "river bird" in text.lower()
            for text in (rows["rows"]["source"][row], *rows["rows"]["reference"][row], rows["hypotheses"][row][-1])
        )
    ]
    search(page, "river bird")
    assert sorted(rows_shown(page)) == sorted(f"eval.tsv:{row + 1}" for row in rows_with)
    search(page, "nothing has this")
    assert rows_shown(page) == []
    assert status(page) == "0 rows, found among 120"
    search(page, "")
    assert len(rows_shown(page)) == 25


def test_a_group_is_shown_alone(show: Show) -> None:
    page = show(make_document(make_run("one", seed=1)))
    choose(page, "Group", "music")
    assert status(page) == "Rows 1 to 25 of 40, found among 120"
    assert {int(row.split(":")[1]) % 3 for row in rows_shown(page)} == {0}


def test_thousands_of_rows_are_turned_a_page_at_a_time(show: Show) -> None:
    page = show(make_document(make_run("one", seed=1, rows=3000)))
    assert status(page) == "Rows 1 to 25 of 3,000"
    click(page, "Last")
    assert status(page) == "Rows 2,976 to 3,000 of 3,000"
    click(page, "Previous")
    assert status(page) == "Rows 2,951 to 2,975 of 3,000"
    assert page.evaluate("document.querySelectorAll('.rows tbody').length") == 25


def compare(page: Page, one: str, other: str) -> None:
    choose(page, "Evaluation A", one)
    choose(page, "Evaluation B", other)


def test_two_evaluations_side_by_side_show_what_got_better_and_worse(show: Show) -> None:
    run = make_run("one", seed=1)
    page = show(make_document(run))
    compare(page, "step 400", "step 600")
    gains = [line[-1] - line[3] for line in run["sets"][0]["row_scores"]]
    better, equal, worse = (
        sum(test) for test in zip(*[(gain > 0, gain == 0, gain < 0) for gain in gains], strict=True)
    )
    assert worse > 0
    verdict = page.evaluate("document.querySelector('.verdict ul').innerText.replace(/\\s+/g, ' ')")
    assert verdict.startswith(f"B against A: {better} better {equal} as good {worse} worse")
    click(page, "B − A")
    worst = sorted(range(120), key=lambda row: (gains[row], row))[:25]
    assert rows_shown(page) == [f"eval.tsv:{row + 1}" for row in worst]
    choose(page, "Rows", "B worse")
    assert status(page).startswith(f"Rows 1 to {min(25, worse)} of {worse}")
    assert all(gains[int(row.split(":")[1]) - 1] < 0 for row in rows_shown(page))


def test_two_runs_are_matched_by_id_and_source_in_any_order(show: Show) -> None:
    one, two = make_run("one", seed=1), make_run("two", seed=2)
    rows = two["sets"][0]
    order = list(range(120))
    random.Random(3).shuffle(order)
    order = order[:100]
    for name, column in rows["rows"].items():
        rows["rows"][name] = [column[row] for row in order]
    wanted = {rows["rows"]["id"][place]: rows["hypotheses"][row][-1] for place, row in enumerate(order)}
    for name in ("hypotheses", "row_scores"):
        rows[name] = [rows[name][row] for row in order]
    page = show(make_document(one, two))
    assert "of 100" in status(page)
    assert "20 rows are not in both A and B" in page.evaluate("document.querySelector('#hypotheses').innerText")
    shown = page.evaluate(
        """[...document.querySelectorAll('.rows tbody')].map(row => {
            const text = [...row.querySelectorAll('dd')].at(-1);
            return [row.querySelector('.facts th').innerText, text.innerText, text.querySelectorAll('del').length];
        })"""
    )
    unmarked = [(row, text) for row, text, missing in shown if not missing]
    choose(page, "Mark differences", "of B from A")
    assert unmarked
    assert all(text == wanted[row] for row, text in unmarked)


def test_scores_of_different_kinds_are_not_compared(show: Show) -> None:
    one, two = make_run("one", seed=1), make_run("two", seed=2)
    two["sets"][0]["score_name"] = "chrF"
    page = show(make_document(one, two))
    assert "another score (chrF)" in text_of(page, "#hypotheses")
    heads = page.evaluate("[...document.querySelectorAll('.rows thead th')].map(each => each.innerText.trim()[0])")
    assert heads == ["R", "G", "L", "R", "A"]


def test_differences_between_two_hypotheses_can_be_marked_instead(show: Show) -> None:
    run = make_run("one", seed=1, rows=1)
    run["sets"][0]["rows"]["reference"] = [["set an alarm"]]
    run["sets"][0]["hypotheses"] = [["set an alarm", "set no alarm", *["x"] * 4]]
    page = show(make_document(run))
    compare(page, "step 100", "step 200")
    choose(page, "Mark differences", "of B from A")
    assert page.evaluate("[...document.querySelectorAll('.rows ins, .rows del')].map(each => each.textContent)") == [
        "no",
        "an",
    ]
    assert text_of(page, "#hypotheses .panel .key") == "In B, marked is not in A, and struck out is in A only."


@pytest.mark.parametrize(
    ("wanted", "made", "extra", "missing"),
    [
        ("set an alarm for nine", "set a alarm for for nine", ["a", "for"], ["an"]),
        ("set an alarm", "set an alarm", [], []),
        ("我爱北京天安门", "我爱东京天门", ["东"], ["北", "安"]),
        ("나는 학교에 간다", "나는 학교로 간다", ["학교로"], ["학교에"]),
        ("a b", "", [], []),
    ],
)
def test_differences_from_the_reference_are_marked(
    show: Show, wanted: str, made: str, extra: list[str], missing: list[str]
) -> None:
    run = make_run("one", seed=1, rows=1)
    run["sets"][0]["rows"]["reference"] = [[wanted]]
    run["sets"][0]["hypotheses"] = [[made] * 6]
    page = show(make_document(run))
    for tag, words in (("ins", extra), ("del", missing)):
        assert (
            page.evaluate(f"[...document.querySelectorAll('.rows {tag}')].map(each => each.textContent.trim())")
            == words
        )


def test_differences_give_the_text_and_the_reference_back(show: Show) -> None:
    page = show(make_document(make_run("one", seed=1)))
    rng = random.Random(5)
    pairs = [["".join(rng.choices("ab c　\n東京", k=rng.randint(0, 14))) for _ in range(2)] for _ in range(300)]
    for pair, pieces in zip(
        pairs, page.evaluate(f"{pairs!r}.map(([one, other]) => findDifferences(one, other))"), strict=True
    ):
        sides = [[each["text"] for each in pieces if each["kind"] != other] for other in ("missing", "extra")]
        assert ["".join("".join(side).split()) for side in sides] == ["".join(text.split()) for text in pair]


def test_means_by_length_rarity_and_group_are_those_counted_in_python(show: Show) -> None:
    run = make_run("one", seed=1)
    page = show(make_document(run))
    compare(page, "step 200", "step 600")
    click(page, "Scores by kind of row")
    rows = run["sets"][0]
    for title, key, edges in (
        ("By length of the reference", "length", LENGTHS),
        ("By the rarest word of the reference", "rarity", RARITIES),
    ):
        inside: dict[int, list[list[float]]] = {}
        for value, scores in zip(rows["rows"][key], rows["row_scores"], strict=True):
            if value is not None:
                inside.setdefault(max(edge for edge in edges if edge <= value), []).append(scores)
        check_buckets(read_table(page, title), [inside[edge] for edge in sorted(inside)])
        assert [line[0].split()[0] for line in read_table(page, title)] == [f"{edge:,}" for edge in sorted(inside)]
    groups = {
        group: [scores for each, scores in zip(rows["rows"]["group"], rows["row_scores"], strict=True) if each == group]
        for group in ("weather", "alarm", "music")
    }
    found = {line[0]: line for line in read_table(page, "By group")}
    check_buckets([found[group] for group in groups], list(groups.values()))


def check_buckets(found: list[list[str]], wanted: list[list[list[float]]]) -> None:
    assert [int(line[1]) for line in found] == [len(scores) for scores in wanted]
    for line, scores in zip(found, wanted, strict=True):
        for cell, place in ((line[2], 1), (line[3], 5)):
            assert float(cell.split()[0]) == pytest.approx(sum(each[place] for each in scores) / len(scores), abs=6e-5)
        changes = [each[5] - each[1] for each in scores]
        assert float(line[4].split()[0].replace("−", "-")) == pytest.approx(sum(changes) / len(scores), abs=6e-5)


def count_ngrams(texts: list[str]) -> list[Counter[str]]:
    return [
        Counter(" ".join(words[at : at + size]) for size in range(1, 5) for at in range(len(words) - size + 1))
        for words in map(str.split, texts)
    ]


@pytest.mark.parametrize("kind", ["right", "too many", "missing"])
def test_ngrams_are_those_counted_in_python(show: Show, kind: str) -> None:
    run = make_run("one", seed=1)
    page = show(make_document(run))
    compare(page, "step 100", "step 600")
    show_view(page, "N-grams")
    choose(page, "N-grams that are", kind)
    rows = run["sets"][0]
    wanted = count_ngrams([reference for (reference,) in rows["rows"]["reference"]])
    counts = []
    for place in (0, 5):
        made = count_ngrams([line[place] for line in rows["hypotheses"]])
        parts = {"right": Counter.__and__, "too many": Counter.__sub__, "missing": lambda one, other: other - one}
        counts.append(sum((parts[kind](one, other) for one, other in zip(made, wanted, strict=True)), Counter[str]()))
    a, b = counts
    for title, sign in (("More often in A", 1), ("More often in B", -1)):
        leaning = [text for text in {*a, *b} if sign * (a[text] - b[text]) > 0]
        leaning.sort(key=lambda text: (-sign * (a[text] + 1) / (a[text] + b[text] + 2), -a[text] - b[text], text))
        found = read_table(page, title) if leaning else []
        assert [(line[0], int(line[1]), int(line[2])) for line in found] == [
            (text, a[text], b[text]) for text in leaning[:20]
        ]


def test_an_ngram_leads_to_its_rows(show: Show) -> None:
    page = show(make_document(make_run("one", seed=1), make_run("two", seed=2)))
    show_view(page, "N-grams")
    text = page.evaluate("document.querySelector('.ngrams button.link').innerText")
    click(page, text)
    assert page.evaluate("document.querySelector('#hypotheses input[type=search]').value") == text
    assert re.match(r"Rows 1 to \d+ of \d+, found among 120", status(page))


def test_rows_without_scores_of_their_own_are_shown_in_order(show: Show) -> None:
    run = make_run("one", seed=1)
    run["sets"][0].update(row_scores=[[None] * 6 for _ in range(120)], score_name=None)
    page = show(make_document(run))
    assert rows_shown(page)[:3] == ["eval.tsv:1", "eval.tsv:2", "eval.tsv:3"]
    compare(page, "step 100", "step 600")
    assert "the rows have no score of their own" in page.evaluate("document.querySelector('#hypotheses').innerText")
    click(page, "Scores by kind of row")
    assert "have no score of their own" in page.evaluate("document.querySelector('#hypotheses .panel').innerText")
