"""Differences as text, Markdown and JSON; names of strangers are shown as they are."""

import json

from dstrain.reporting.differences import Against, ScoreDifference, as_json, markdown_tables, reasons, text_tables

BLEU = ScoreDifference("bleu", 39.53, 40.57, 1.04, 0.0412, 2.1034, 0.043956, "bs:1000|seed:12345")
FOUND = [
    Against("runs/a", "runs/b", 2000, (BLEU,)),
    Against("runs/a", "runs/c", refusal="3 of 2,000 rows have other references"),
    Against("runs/a", "runs/d", 2000, (BLEU,), left_out="not compared: chrf"),
]


def test_the_table_has_both_scores_the_difference_its_interval_and_p() -> None:
    first, second = text_tables(FOUND).split("\n\n")
    title, header, row = first.splitlines()
    assert title == "second: runs/b, first: runs/a; the same 2,000 rows"
    assert header.split("  ")[0] == "score"
    assert [cell.strip() for cell in row.split("  ") if cell.strip()] == [
        "bleu",
        "39.5300",
        "40.5700",
        "+1.0400",
        "+0.0412 to +2.1034",
        "0.0440 (bs:1000|seed:12345)",
    ]
    assert second.startswith("second: runs/d, ")


def test_runs_and_scores_that_are_not_compared_have_a_reason() -> None:
    assert reasons(FOUND) == [
        "runs/c is not compared with runs/a: 3 of 2,000 rows have other references",
        "runs/d: not compared: chrf",
    ]
    assert reasons([]) == []
    assert text_tables([FOUND[1]]) == markdown_tables([FOUND[1]]) == ""


def test_markdown_escapes_names_and_pipes() -> None:
    table = markdown_tables([Against("a|b", "<c>", 2, (BLEU,))])
    assert "second: &lt;c&gt;, first: a\\|b; the same 2 rows" in table
    assert "bs:1000\\|seed:12345" in table


def test_json_has_every_number_by_the_second_run() -> None:
    found = json.loads(json.dumps(as_json(FOUND)))
    assert set(found) == {"runs/b", "runs/c", "runs/d"}
    assert found["runs/b"]["differences"][0]["p"] == 0.043956
    assert found["runs/c"]["refusal"].startswith("3 of 2,000")


def test_without_a_p_a_dash_and_the_reason_are_shown() -> None:
    same = ScoreDifference("bleu", 39.5, 39.5, 0.0, 0.0, 0.0, None, "the same hypotheses")
    for table in (text_tables, markdown_tables):
        assert "– (the same hypotheses)" in table([Against("a", "b", 2, (same,))])
