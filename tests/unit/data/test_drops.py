"""Rows left out because of others: the set is that of the other rows, and each is listed with its place and reason."""

import json
from pathlib import Path

import numpy as np
import pytest

from dstrain.config.data import Rules
from dstrain.data import shards
from dstrain.data.drops import read_dropped, sources_of
from dstrain.data.encoding import ReadingRules
from dstrain.data.identity import identify
from dstrain.data.lookup import locate_rows
from tests.unit.data.audit_cases import TASK, draw_pairs, encoder, make_set, write
from tests.unit.data.word_encoder import make_example

NUM_ROWS = 40


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_RECORDS", 9)


def test_training_does_without_rows_of_the_evaluation_and_repeated_ones(tmp_path: Path) -> None:
    pairs = draw_pairs(NUM_ROWS)
    pairs[17], pairs[33] = pairs[3], pairs[5]
    held_out = sources_of(identify([make_example(pairs[8][0].upper(), "x"), make_example(pairs[5][0], "y")]))
    sources = [write(tmp_path / "one.tsv", pairs[:20]), write(tmp_path / "two.tsv", pairs[20:])]
    tokens = make_set(sources, folder=tmp_path, held_out=held_out, duplicates="skip")
    left = [pair for place, pair in enumerate(pairs) if place not in (5, 8, 17, 33)]
    expected = make_set([write(tmp_path / "left.tsv", left)], folder=tmp_path)
    assert tokens.fingerprint == expected.fingerprint
    assert tokens.report["skipped"] == {"duplicate": 1, "overlap": 3}
    assert (tokens.report["rows_read"], tokens.report["rows"]) == (NUM_ROWS, NUM_ROWS - 4)
    assert [each["used"] for each in tokens.report["by_source"]] == [17, 19]
    listed = [json.loads(line) for line in (tokens.folder / "bad_rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(row["where"].rpartition("/")[2], row["reason"]) for row in listed} == {
        ("one.tsv:6", "overlap"),
        ("one.tsv:9", "overlap"),
        ("one.tsv:18", "duplicate"),
        ("two.tsv:14", "overlap"),
    }
    assert next(row["text"] for row in listed if row["where"].endswith("one.tsv:18")) == pairs[3][0]
    assert read_dropped(tokens.folder).tolist() == [5, 8, 17, 33]


def test_a_row_is_located_by_its_number_among_those_that_were_kept(tmp_path: Path) -> None:
    pairs = draw_pairs(NUM_ROWS)
    pairs[17] = pairs[3]
    sources = [write(tmp_path / "one.tsv", pairs)]
    tokens = make_set(sources, folder=tmp_path, duplicates="skip")
    reading = ReadingRules(TASK, Rules(unknown_token="keep", duplicates="skip"), encoder(), split="train")
    dropped = read_dropped(tokens.folder).tolist()
    located = locate_rows(range(tokens.num_rows), sources=sources, reading=reading, dropped=dropped)
    assert [(row.source, row.target) for _, row in sorted(located.items())] == [*pairs[:17], *pairs[18:]]


def test_evaluation_rows_are_never_left_out(tmp_path: Path) -> None:
    pairs = draw_pairs(NUM_ROWS)
    pairs[17] = pairs[3]
    tokens = make_set([write(tmp_path / "one.tsv", pairs)], folder=tmp_path, split="eval", duplicates="skip")
    assert tokens.num_rows == NUM_ROWS
    assert read_dropped(tokens.folder).tolist() == []


def test_sets_with_other_rows_held_out_are_kept_apart_in_the_cache(tmp_path: Path) -> None:
    source = write(tmp_path / "one.tsv", draw_pairs(NUM_ROWS))
    held = [sources_of(identify([make_example(draw_pairs(NUM_ROWS)[place][0], "x")])) for place in (0, 1)]
    made = [make_set([source], folder=tmp_path, held_out=each, overlap="skip_train") for each in held]
    assert [tokens.num_rows for tokens in made] == [NUM_ROWS - 1, NUM_ROWS - 1]
    assert made[0].folder != made[1].folder
    assert make_set([source], folder=tmp_path, overlap="error").folder == make_set([source], folder=tmp_path).folder
    assert np.array_equal(made[0].source(0), make_set([source], folder=tmp_path).source(1))
