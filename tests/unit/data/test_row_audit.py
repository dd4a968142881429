"""What is looked for in every row: planted faults are counted and listed, clean rows are not."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dstrain.data.encoding import Encoded
from dstrain.data.identity import identify
from dstrain.data.row_audit import RowAudit
from dstrain.run_folder.audit import Found, SourceAudit
from tests.unit.data.audit_cases import PLANTS, Pair, draw_pairs
from tests.unit.data.word_encoder import make_example

OF_ALL_ROWS = {"swapped", "source_like_targets", "target_like_sources"}
"""Checks that are made when all rows are known."""


def encode(pairs: list[Pair], *, first: int = 1, data_source: int = 0, lost: int = 0) -> list[Encoded]:
    return [
        Encoded(
            make_example(*pair, where=f"rows.tsv:{line}", data_source=data_source),
            [1] * (len(pair[0].split()) - lost),
            [1] * len(pair[1].split()),
            source_lost=lost,
        )
        for line, pair in enumerate(pairs, start=first)
    ]


def in_languages(rows: list[Encoded], source: str, target: str) -> list[Encoded]:
    for row in rows:
        row.example = replace(row.example, source_language=source, target_language=target)
    return rows


def count(rows: list[Encoded]) -> RowAudit:
    audit = RowAudit()
    audit.add(rows, identify([row.example for row in rows]))
    return audit


def report(rows: list[Encoded]) -> SourceAudit:
    (found,) = count(rows).report({}, tags={})
    return found


def test_clean_rows_have_no_finding() -> None:
    found = report(encode(draw_pairs(500)))
    assert {name: each for name, each in found.checks.items() if each.number} == {}
    assert found.scripts == {"Cyrillic > Latin": found.rows}


@pytest.mark.parametrize("name", sorted(PLANTS.keys() - OF_ALL_ROWS))
def test_a_planted_fault_is_counted_and_named(name: str) -> None:
    pairs = draw_pairs(500)
    for place in (7, 300):
        pairs[place] = PLANTS[name](random.Random(place), pairs, place)
    assert report(encode(pairs)).checks[name] == Found(2, ("rows.tsv:8", "rows.tsv:301"))


@pytest.mark.parametrize(
    ("source", "target", "differ"),
    [
        ("1,000 km", "1000 km", False),
        ("on 12.05.1999", "12.05.1999", False),
        ("２０２４ 年", "2024", False),
        ("a 7", "b 8", False),
        ("in 1999", "in the nineties", False),
        ("10:30", "10시 30분", False),
        ("1999", "1989", True),
        ("3.25 %", "3.52 %", True),
    ],
)
def test_numbers_are_compared_whatever_marks_are_in_them(source: str, target: str, differ: bool) -> None:
    assert report(encode([(source, target)])).checks["numbers"].number == differ


def test_short_texts_may_be_the_same_on_both_sides() -> None:
    assert report(encode([("OpenAI GmbH", "OpenAI GmbH")])).checks["copied"].number == 0


def test_a_source_in_many_scripts_has_none_that_is_wrong() -> None:
    texts = ("Где находится школа", "학교가 어디에 있습니까", "Πού είναι το σχολείο") * 5
    pairs = [(text, "the same in English") for text in texts]
    assert report(encode(pairs)).checks["source_script"] == Found()


def test_lengths_are_those_before_anything_was_cut() -> None:
    rows = encode([("a b c d e f g h", "x y"), ("a b c d", "x")], lost=3)
    lengths = report(rows).source
    assert (lengths.shortest, lengths.mean, lengths.median, lengths.longest) == (4, 6.0, 4, 8)
    assert lengths.histogram == ((4, 1), (8, 1))
    assert lengths.longest_rows == ((8, "rows.tsv:1"), (4, "rows.tsv:2"))


def test_counts_of_parts_survive_a_file_and_are_those_of_the_whole() -> None:
    draw = random.Random(4)
    pairs = draw_pairs(300)
    for place, plant in enumerate(PLANTS.values()):
        pairs[20 * place] = plant(draw, pairs, 20 * place)
    parts = [encode(pairs[:100]), encode(pairs[100:], first=101), encode(pairs[:50], data_source=2)]
    joined = RowAudit()
    for part in parts:
        joined.join(RowAudit.from_json(count(part).as_json()))
    assert list(joined.report({}, tags={})) == list(count([row for part in parts for row in part]).report({}, tags={}))
    assert [source.rows for source in joined.report({}, tags={})] == [300, 50]


def test_no_rows_are_no_fault() -> None:
    audit = RowAudit()
    none: Any = np.empty(0)
    audit.add([], none)
    assert list(audit.report({}, tags={})) == []


def test_rows_must_be_in_a_script_of_their_language_where_it_is_known() -> None:
    pairs = draw_pairs(40)
    swapped = [(target, source) for source, target in pairs]
    found = report(in_languages(encode(swapped), "ru", "en")).checks
    assert found["source_script"].number == found["target_script"].number == 40
    assert report(in_languages(encode(pairs), "ru", "en")).checks["source_script"] == Found()
    assert report(in_languages(encode(swapped), "tlh", "qya")).checks["source_script"] == Found()


def test_rows_of_several_languages_are_compared_with_those_of_their_own() -> None:
    russian = in_languages(encode(draw_pairs(60)), "ru", "en")
    english = in_languages(encode([pair[::-1] for pair in draw_pairs(30)], first=61), "en", "ru")
    wrong = in_languages(encode([pair[::-1] for pair in draw_pairs(3)], first=91), "ru", "en")
    found = report([*russian, *english, *wrong])
    assert found.checks["source_script"] == Found(3, ("rows.tsv:91", "rows.tsv:92", "rows.tsv:93"))
    assert [(each.source_language, each.scripts) for each in found.directions] == [
        ("ru", {"Cyrillic > Latin": 60, "Latin > Cyrillic": 3}),
        ("en", {"Latin > Cyrillic": 30}),
    ]


def test_a_hundred_rows_of_a_finding_are_listed_and_all_are_counted() -> None:
    found = report(encode([(source + "\ufffd", target) for source, target in draw_pairs(150)]))
    assert found.checks["source_control"].number == 150
    assert found.checks["source_control"].rows == tuple(f"rows.tsv:{line}" for line in range(1, 101))
