"""What limits and tokenizer do to a set's rows is counted and said, and a limit that cuts every row is refused."""

import re
from dataclasses import replace
from typing import Any, Literal

import pytest

from dstrain.config.data import Rules
from dstrain.config.recipe import Task
from dstrain.data.bad_rows import BadRowLog
from dstrain.data.counts import Counts, describe_losses, describe_set, warn_of_set
from dstrain.data.encoding import ReadingRules, encode_examples
from dstrain.data.examples import Example
from tests.unit.data.word_encoder import WordEncoder, make_example

REPORT = {
    "rows_read": 1000, "rows": 990, "distinct_rows": 990, "skipped": {"empty": 8, "too_long": 2}, "source_tokens": 10_000,
    "target_tokens": 8_000, "truncated": 0, "kept_too_long": 0, "kept_with_unknown": 0,
    **Counts(longest_target=50, longest_target_where="dev.tsv:3").report(),
}  # fmt: skip


def build_reading(split: Literal["train", "eval"], **task: Any) -> ReadingRules:
    encoder = WordEncoder("a b c d e f g")
    return ReadingRules(Task(kind="translation", **task), Rules(unknown_token="keep"), encoder, split=split)


def count(examples: list[Example], *, reading: ReadingRules) -> Counts:
    counts = Counts()
    for items in encode_examples(examples, reading=reading, on_bad=BadRowLog()):
        for item in items:
            counts.add(item, reading=reading)
    return counts


def test_rows_that_are_cut_and_unknown_tokens_are_counted_on_both_sides() -> None:
    rows = [make_example("a b c d", "a"), make_example("a x y", "z b c d", where="f:2"), make_example("a", "b")]
    counts = count(rows, reading=build_reading("train", max_source_tokens=4, max_target_tokens=4))
    assert (counts.num_rows, counts.source_cut, counts.target_cut) == (3, 1, 1)
    assert (counts.source_unknown, counts.target_unknown) == (2, 1)
    assert (counts.longest_target, counts.longest_target_where) == (4, "f:2")
    assert counts.not_given_back == 0


def test_references_that_do_not_come_back_are_counted_and_the_first_is_kept() -> None:
    rows = [make_example("a", "a  b"), make_example("a", "a { b", where="f:2"), make_example("a", "}", where="f:3")]
    counts = count(rows, reading=build_reading("eval"))
    assert counts.not_given_back == 2
    assert counts.first_not_given_back == {"where": "f:2", "text": "a { b", "given_back": "a <unk> b"}


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_limit_that_cuts_every_row_is_refused(side: str) -> None:
    rows = [make_example("a b c", "a b c"), make_example("a b c d", "a b c d")]
    reading = build_reading("train", **{f"max_{side}_tokens": 2})
    with pytest.raises(
        ValueError, match=rf"task\.max_{side}_tokens is 2: each of the 2 {side}s of data\.train would be cut"
    ):
        count(rows, reading=reading).check_limits(reading=reading)
    one_fits = [*rows, make_example("a", "a")]
    count(one_fits, reading=reading).check_limits(reading=reading)


def test_a_set_is_described_in_a_line() -> None:
    clean = REPORT | {"rows": 1000, "skipped": {}}
    assert describe_set("train", clean) == "train data: 990 of 1,000 rows used, repeated to 1,000 per epoch"
    bad = REPORT | {"truncated": 4, "source_unknown": 5, "target_unknown": 80}
    assert describe_set("train", REPORT | {"skipped": {}}) == "train data: 990 of 1,000 rows used"
    assert describe_set("eval", bad) == (
        "eval data: 990 of 1,000 rows used; 8 empty skipped; 2 too long skipped; 4 cut to the limits of the task; "
        "unknown tokens 0.05% of the sources; unknown tokens 1.00% of the targets"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"source_cut": 495}, None),
        ({"source_cut": 496}, r"496 of 990 sources are cut; task\.max_source_tokens may be too low"),
        (
            {"not_given_back": 2, "first_not_given_back": {"where": "f:2", "text": "a" * 70, "given_back": "b"}},
            r"does not give back 2 of 990 references, so that .* the first is f:2: 'a{60}…' becomes 'b'",
        ),
        ({"longest_target": 128}, None),
        ({"longest_target": 129}, r"the longest reference has 129 tokens \(dev\.tsv:3\), 99 % have at most 40"),
    ],
)
def test_what_a_reader_should_know_is_a_warning(changes: dict[str, Any], said: str | None) -> None:
    found = list(warn_of_set("eval", REPORT | changes, usual_target=40))
    assert len(found) == (said is not None)
    if said is not None:
        assert re.search(said, found[0]), found


def test_long_targets_of_training_rows_limit_nothing() -> None:
    assert list(warn_of_set("train", REPORT | {"longest_target": 30_000}, usual_target=40)) == []


def test_what_became_of_rows_is_said_in_words() -> None:
    report = {"skipped": {"empty": 1200, "too_long": 0}, "truncated": 2, "kept_too_long": 0, "kept_with_unknown": 1}
    assert describe_losses(report) == [
        "1,200 empty skipped",
        "2 cut to the limits of the task",
        "1 kept with unknown tokens",
    ]
    assert describe_losses({"skipped": {}, "truncated": 0, "kept_too_long": 0, "kept_with_unknown": 0}) == []


def test_plain_targets_that_are_no_parses_are_warned_about_where_the_others_are_parses() -> None:
    parse, broken = "[IN:A [SL:B c ] ]", "[IN:A [SL:B c ]"
    rows = [make_example("a", parse), make_example("a", broken, where="f:2"), make_example("a", parse)]
    reading = replace(build_reading("train"), task=Task(kind="parsing", form="plain"))
    counts = count(rows, reading=reading)
    (warning,) = warn_of_set("train", REPORT | counts.report() | {"distinct_rows": 3}, usual_target=20)
    assert warning.startswith("train data: 1 of 3 targets are not well-formed parses, but the others are")
    assert warning.endswith(f"the first is f:2: '{broken}'")
    sql = count([make_example("a", "SELECT b")] * 3, reading=reading)
    assert list(warn_of_set("train", REPORT | sql.report() | {"distinct_rows": 3}, usual_target=20)) == []
    assert count([make_example("a", "b")], reading=build_reading("train")).unparsed == 0
