"""Escaping: text is rendered literally, and ordinary names stay readable in the source."""

import math

import pytest

from dstrain.reporting.markdown import (
    Markdown,
    code,
    code_block,
    number,
    one_line,
    plain,
    program,
    render,
    table,
    things_were,
)


@pytest.mark.parametrize(
    "name", ["facebook/m2m100_418M", "nvidia-h200", "ko-en", "max_new_tokens", "0.5", "-0.5", "한국어"]
)
def test_ordinary_names_are_left_as_they_are(name: str) -> None:
    assert plain(name) == name


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", "a\\|b"),
        ("_all_", "\\_all\\_"),
        ("<!-- x -->", "&lt;!-- x --&gt;"),
        ("&lt;", "&amp;lt;"),
        ("[x](y)", "\\[x\\](y)"),
        ("a\n---\nb", "a --- b"),
        ("---", "\\---"),
        ("- item", "\\- item"),
        ("12. item", "12\\. item"),
        ("a\u2028b\x00c\ud800", "a b c?"),
    ],
)
def test_markup_in_text_is_escaped(text: str, escaped: str) -> None:
    assert plain(text) == escaped


@pytest.mark.parametrize(("text", "shown"), [("a", "`a`"), ("a`b", "``a`b``"), ("`a``", "``` `a`` ```"), ("", "` `")])
def test_code_is_fenced_by_more_backticks_than_it_holds(text: str, shown: str) -> None:
    assert code(text) == shown


def test_a_code_block_is_fenced_by_more_backticks_than_it_holds() -> None:
    assert code_block("a\n```\nb", language="bash") == "````bash\na\n```\nb\n````"


def test_markdown_is_kept_and_everything_else_is_escaped() -> None:
    assert render(Markdown("**a**")) == "**a**"
    assert render("**a**") == "\\*\\*a\\*\\*"


@pytest.mark.parametrize(
    "cell", ["a|b", "a\\|b", "a\\\\|b", Markdown("`a|b`"), Markdown("`a\\|b`"), Markdown("`a\\\\|b`")]
)
def test_no_cell_ends_early(cell: str) -> None:
    line = table(["Name"], [[cell]]).splitlines()[-1]
    borders = 0
    position = 0
    while position < len(line):
        if line[position] == "\\":
            position += 1  # GFM takes the next character as it is
        elif line[position] == "|":
            borders += 1
        position += 1
    assert borders == 2


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(["Step", "Bleu"], [["5000", "12.7212"]]).splitlines() == [
        "| Step | Bleu    |",
        "|:----:|:-------:|",
        "| 5000 | 12.7212 |",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.7640, "0.7640"), (None, "not recorded"), (math.nan, "not a number (NaN)"), (-math.inf, "-infinite")],
)
def test_numbers_have_four_decimals_or_say_what_they_are(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_one_line_collapses_white_space() -> None:
    assert one_line("  a\r\n\t b ") == "a b"


def test_things_agree_with_their_verb() -> None:
    assert things_were(1, "training rows") == "1 training row was"
    assert things_were(1200, "training rows") == "1,200 training rows were"


def test_a_program_is_kept_as_it_is_in_a_fence_that_it_cannot_close() -> None:
    text = "if a:\n    print('two  blanks ```')"
    assert program(text, language="python") == f"````python\n{text}\n````"


def test_a_code_block_keeps_spaces_and_its_lines_are_those_that_were_written() -> None:
    assert code_block("a  'b   c'\nd", language="bash") == "```bash\na  'b   c'\nd\n```"
    assert code_block("a\tb\u2028c\x0bd\x1be", language="bash") == "```bash\na b c d e\n```"
