"""Joining shards: the files and the hash are those of all rows at once, wherever shards begin."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstrain.config.data import Rules, Source
from dstrain.config.recipe import Task
from dstrain.data import shards, tokens
from dstrain.data.encoding import ReadingRules
from dstrain.data.merge import merge_shards
from dstrain.data.shards import shard_path
from dstrain.data.tokens import TokenSet, load_token_set, prepare_token_set
from tests.unit.data.word_encoder import WordEncoder

WORDS = "a b c d e f g"
TASK = Task(kind="translation")
ROWS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=40)


def reading(**rules: Any) -> ReadingRules:
    return ReadingRules(TASK, Rules(unknown_token="keep", **rules), WordEncoder(WORDS), split="train")


def write_rows(path: Path, lengths: Sequence[tuple[int, int]]) -> Source:
    path.write_text("".join("\t".join(" ".join(WORDS.split()[:size]) for size in row) + "\n" for row in lengths))
    return Source(path=str(path))


def expected_fingerprint(pairs: Sequence[tuple[Sequence[int], Sequence[int]]], repeats: Sequence[int]) -> str:
    """The hash as it has always been: per side of all distinct ids and of all rows' lengths, in 32 bits."""
    parts = b""
    for side in zip(*pairs, strict=True):
        ids = np.asarray([i for row in side for i in row], dtype="<i4")
        lengths = np.repeat(np.asarray([len(row) for row in side], dtype="<i4"), repeats)
        parts += hashlib.sha256(ids.tobytes()).digest() + hashlib.sha256(lengths.tobytes()).digest()
    return hashlib.sha256(parts).hexdigest()


def rows_of(found: TokenSet) -> list[tuple[list[int], list[int]]]:
    return [(found.source(row).tolist(), found.target(row).tolist()) for row in range(found.num_rows)]


@settings(max_examples=25, deadline=None)
@given(ROWS, st.integers(1, 9), st.integers(1, 5), st.sampled_from([1, 3]))
def test_rows_and_hash_do_not_depend_on_where_shards_and_starts_are(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[tuple[int, int]],
    shard_records: int,
    starts_every: int,
    repeat: int,
) -> None:
    folder = tmp_path_factory.mktemp("sets")
    sources = [write_rows(folder / "a.tsv", lengths), write_rows(folder / "b.tsv", [(1, 2)])]
    sources[0] = sources[0].model_copy(update={"repeat": repeat})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_RECORDS", shard_records)
        patch.setattr(tokens, "STARTS_EVERY", starts_every)
        found = load_token_set(prepare_token_set(sources, reading=reading(), cache_dir=folder / "cache"))
    rows = [[[*range(10, 10 + size), 2] for size in row] for row in [*lengths, (1, 2)]]
    pairs, repeats = [(source, target) for source, target in rows], [*[repeat] * len(lengths), 1]
    assert rows_of(found) == [pair for pair, times in zip(pairs, repeats, strict=True) for _ in range(times)]
    assert found.fingerprint == expected_fingerprint(pairs, repeats)
    every = starts_every if repeat == 1 else 1
    assert (found.folder / "source_starts.bin").stat().st_size == 8 * -(-found.num_rows // every)
    assert (found.folder / "target_ids.bin").stat().st_size == 2 * sum(len(target) for _, target in pairs)


def test_the_report_counts_what_became_of_the_rows_of_every_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_RECORDS", 2)
    path = tmp_path / "a.tsv"
    path.write_text("a\ta\n\ta\na\t?\nx\ta b c\na\t\n")
    source, rules = Source(path=str(path)), reading(empty="skip")
    folder, draft = tmp_path / "shards", tmp_path / "draft"
    draft.mkdir()
    numbers = list(shards.encode_shards([source], reading=rules, folder=folder))
    report = merge_shards([shard_path(folder, n) for n in numbers], reading=rules, folder=draft, starts_every=64)
    assert (report["rows_read"], report["rows"], report["skipped"]) == (5, 3, {"empty": 2})
    assert (report["kept_with_unknown"], report["source_unknown"], report["target_unknown"]) == (1, 1, 1)
    assert (report["longest_target"], report["longest_target_where"]) == (4, f"{path}:4")
    listed = (draft / "bad_rows.jsonl").read_text().splitlines()
    assert [line.split('"')[3].rpartition(":")[2] for line in listed] == ["2", "3", "5"]
