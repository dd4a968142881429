"""Marks of failing hypotheses are found on both sides alike, and warned about only where hypotheses have more of them."""

import random
from pathlib import Path
from typing import Any

import pytest

from dstrain.evaluation.output_rates import (
    LOOP_CHARACTERS,
    LOOP_TIMES,
    Texts,
    ends_in_loop,
    find_rates,
    is_copy,
    is_empty,
)
from dstrain.run_folder.scores import OutputRate
from tests.unit.evaluation.significance_cases import sentences


def build(hypotheses: list[str], references: list[str], **changes: Any) -> Texts:
    values = {"sources": [f"원문 {row}" for row in range(len(references))], "languages": [None] * len(references)}
    return Texts(hypotheses, references, **values | changes)


@pytest.mark.parametrize("text", ["", " ", "\t\u3000", "\u200b\u200b", "\u00ad"])
def test_a_text_without_anything_visible_is_empty(text: str) -> None:
    assert is_empty(text)


@pytest.mark.parametrize("text", ["a", " . ", "가"])
def test_a_text_with_a_mark_is_not_empty(text: str) -> None:
    assert not is_empty(text)


@pytest.mark.parametrize(
    ("text", "source", "expected"),
    [
        ("Das ist so.", "das  ist so. ", True),
        ("안녕", "안녕", True),
        ("", "", False),
        ("Das ist so", "Das ist so.", False),
    ],
)
def test_a_copy_is_the_source_but_for_case_and_white_space(text: str, source: str, expected: bool) -> None:
    assert is_copy(text, source=source) is expected


@pytest.mark.parametrize(
    "text",
    [
        "the cat sat on the cat sat on the cat sat on the cat sat on ",
        "It begins well, and then and then and then and then and then an",
        "하하하하하하하하하하하하하하하하",
        "w7 w7 w7 w7 w7 w7 w7",
        "................",
        "x" * 5000,
        ("word " * 39) * 4,
    ],
)
def test_a_piece_over_and_over_until_the_end_is_a_loop(text: str) -> None:
    assert ends_in_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ha ha ha ha",
        "no, no, no, no.",
        "wait ...",
        "the cat sat on the cat sat on the cat sat on a mat",
        "very very very very very long, but it ends",
        "[IN:GET [SL:A [IN:B [SL:C x ] ] ] ]",
    ],
)
def test_what_people_write_is_no_loop(text: str) -> None:
    assert not ends_in_loop(text)


def by_hand(text: str) -> bool:
    """The same by trying every piece and counting its copies from the end."""
    for size in range(1, 201):
        length = max(LOOP_TIMES * size, LOOP_CHARACTERS)
        end = text[-length:]
        if len(end) == length and all(end[place] == end[place % size] for place in range(length)):
            return True
    return False


def test_loops_are_those_found_piece_by_piece() -> None:
    chosen = random.Random(0)
    texts = []
    for _ in range(400):
        piece = "".join(chosen.choices("ab ", k=chosen.randint(1, 7)))
        texts.append("".join(chosen.choices("ab ", k=5)) + piece * chosen.randint(1, 9) + piece[: chosen.randint(0, 3)])
    found = [ends_in_loop(text) for text in texts]
    assert found == [by_hand(text) for text in texts]
    assert 50 < sum(found) < 350


REFERENCES = sentences(100)


@pytest.mark.parametrize(
    ("name", "failed"),
    [
        ("empty", ""),
        ("loop", "and then " * 8),
        ("copy", "원문 {row}"),
        ("wrong_script", "이것은 번역이 아니다"),
    ],
)
def test_each_mark_is_counted_and_warned_about_from_six_more_rows_than_references_on(name: str, failed: str) -> None:
    for number, warned in ((0, False), (5, False), (6, True), (60, True)):
        hypotheses = [failed.format(row=row) if row < number else text for row, text in enumerate(REFERENCES)]
        found = find_rates(build(hypotheses, REFERENCES))
        assert found.rates[name] == OutputRate(number / 100, 0.0)
        said = [warning for warning in found.warnings if warning.startswith(f"{number} of 100 hypotheses")]
        assert bool(said) is warned


def test_marks_that_references_have_as_often_are_no_fault() -> None:
    references = ["", "la la la la la la la la", "원문 2", *REFERENCES[3:]] + ["원문"] * 9
    found = find_rates(build([*references[3:], *references[:3]], references))
    assert found.warnings == []
    assert {name: rate.hypotheses for name, rate in found.rates.items() if name != "copy"} == {
        name: rate.references for name, rate in found.rates.items() if name != "copy"
    }
    assert found.rates["empty"].references == 1 / 109


def test_a_parse_has_no_script_and_is_no_copy() -> None:
    found = find_rates(build(["[IN:A ]"], ["[IN:B ]"], has_script=False))
    assert set(found.rates) == {"empty", "loop"}


@pytest.mark.real_data
def test_real_references_have_next_to_no_marks_and_no_false_alarm(real_data: Path) -> None:
    lines = (real_data / "ko_en" / "python_docs.dev.tsv").read_text(encoding="utf-8").splitlines()
    korean, english = (list(column) for column in zip(*(line.split("\t")[:2] for line in lines), strict=True))
    given: dict[str, Any] = {"sources": korean, "languages": ["en"] * len(lines), "other_languages": ["ko"]}
    assert find_rates(Texts(english, english, **given)).warnings == []
    rates = find_rates(Texts(korean, english, **given)).rates
    assert rates["empty"].references == rates["loop"].references == 0.0
    assert rates["wrong_script"].references < 0.01
    assert rates["wrong_script"].hypotheses > 0.6  # the others are mostly names of Python
    assert rates["copy"].hypotheses == 1.0
