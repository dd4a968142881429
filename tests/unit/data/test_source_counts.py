"""Every data source has its counts and its first rows, and a source that gives nothing is refused."""

from collections.abc import Iterable
from typing import Any

import pytest

from dstrain.config.data import Source
from dstrain.data.bad_rows import BadRow, BadRowLog
from dstrain.data.examples import Example
from dstrain.data.source_counts import SourceCounts, describe_sources, warn_of_columns
from tests.unit.data.word_encoder import make_example


def count(examples: Iterable[Example]) -> SourceCounts:
    counts = SourceCounts()
    for example in examples:
        counts.add(example)
    return counts


def test_every_source_has_its_first_pair_and_its_counts_where_there_are_several() -> None:
    rows = [make_example("a b", "c"), make_example("d", "e"), make_example("f" * 70, "g", data_source=1)]
    log = BadRowLog()
    log(BadRow("b.tsv:1", "empty", "", "skip", data_source=1))
    counts = count(rows)
    sources = [Source(path="a.tsv"), Source(path="b.tsv", repeat=3)]
    found = counts.report(["a.tsv", "b.tsv"], log=log, split="train")
    assert list(describe_sources("train", {"by_source": found}, sources=sources)) == [
        "data.train.0 (a.tsv): 2 of 2 rows used; first: 'a b' → 'c'",
        f"data.train.1 (b.tsv): 1 of 2 rows used; 1 empty skipped; 3 times per epoch; first: '{'f' * 60}…' → 'g'",
    ]
    assert list(describe_sources("train", {"by_source": found[:1]}, sources=sources[:1])) == [
        "data.train.0 (a.tsv): first: 'a b' → 'c'"
    ]


def test_a_source_without_a_usable_row_is_refused_with_what_became_of_its_rows() -> None:
    counts, log = count([make_example("a", "b")]), BadRowLog()
    for line in (1, 2):
        log(BadRow(f"b.tsv:{line}", "undecodable", "", "skip", data_source=1))
    with pytest.raises(ValueError, match="has no usable row") as raised:
        counts.report(["a.tsv", "b.tsv", "c.tsv"], log=log, split="eval")
    assert str(raised.value) == (
        "data.eval.1 (b.tsv) has no usable row: 0 of 2 rows used; 2 undecodable skipped. data.eval.2 (c.tsv) has no usable "
        "row: it is empty. Correct the data or its columns, change data.rules, or leave the source out"
    )


def warnings(rows: list[tuple[int, str, str]], **source: Any) -> list[str]:
    counts = count(make_example(text, target, where=f"a.csv:{line}") for line, text, target in rows)
    report = {"by_source": counts.report(["a.csv"], log=BadRowLog(), split="train")}
    return list(warn_of_columns("train", report, sources=[Source(**({"path": "a.csv"} | source))]))


@pytest.mark.parametrize(
    "pair", [("source", "target"), ("de", "en"), ("Input", "OUTPUT "), ("utterance", "logical_form")]
)
def test_a_header_that_is_used_as_a_row_is_warned_about(pair: tuple[str, str]) -> None:
    (warning,) = warnings([(1, *pair), (2, "Hallo", "Hello")])
    assert warning.startswith("data.train.0 (a.csv): the first row, ")
    assert "looks like a header, and is used as a row because columns are given by number: name the columns" in warning


@pytest.mark.parametrize(
    ("rows", "source"),
    [
        ([(1, "Hallo", "Hello")], {}),
        ([(1, "Text", "Texte")], {}),  # a dictionary
        ([(1, "source", "die Quelle")], {}),
        ([(5, "source", "target")], {}),
        ([(1, "de", "en")], {"source_column": "x", "target_column": "y"}),
        ([(1, "de", "en")], {"target_path": "b.csv"}),
        ([(1, "0", "zero"), (2, "1", "one"), (3, "2", "two")], {}),  # numbers in words
        ([(2, "0", "zero"), (3, "1", "one")], {}),
    ],
)
def test_other_rows_are_not(rows: list[tuple[int, str, str]], source: dict[str, Any]) -> None:
    assert warnings(rows, **source) == []


@pytest.mark.parametrize("column", ["source_column", "target_column"])
def test_an_index_that_pandas_has_written_is_warned_about(column: str) -> None:
    rows = [(line, str(line - 2), "Hallo") for line in range(2, 6)]
    if column == "target_column":
        rows = [(line, text, index) for line, index, text in rows]
    (warning,) = warnings(rows)
    assert f"{column} holds the numbers 0, 1, 2 under a header without a name: an index, as pandas writes it" in warning


@pytest.mark.parametrize(
    ("sources", "tag"),
    [
        (["<2en> a", "<2en> b"], "<2en>"),
        ([">>fra<< a", ">>deu<< b"], ""),
        (["translate English to French: a", "translate English to French: b"], "translate English to French:"),
        (["Do you have a house?", "Do you like it?"], ""),
    ],
)
def test_a_mark_in_the_texts_is_known_where_all_first_rows_have_it(sources: list[str], tag: str) -> None:
    assert count(make_example(source, "a") for source in sources).tags() == {0: tag}
