"""Shards: each made once, whoever makes it and whatever was killed; a kill costs the shard that is not complete."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dstrain.config.data import Rules, Source
from dstrain.config.recipe import Task
from dstrain.data import merge, shards
from dstrain.data.bad_rows import UnusableRowError
from dstrain.data.encoding import ReadingRules, Split
from dstrain.data.shards import Share, count_shards, encode_shards, make_shards, read_shard, shard_path
from dstrain.data.tokens import load_token_set, prepare_token_set
from dstrain.run_folder import sealed
from dstrain.run_folder.sealed import check_if_made
from tests.unit.data.word_encoder import WordEncoder

WORDS = "a b c d e f g"
NUM_ROWS = 25


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_RECORDS", 4)
    monkeypatch.setattr(shards, "BEAT_RECORDS", 3)


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    """25 records in two files; the third is unusable."""
    words = WORDS.split()
    lines = [f"{words[row % 7]} {words[row % 3]}\t{words[row % 5]}\n" for row in range(NUM_ROWS)]
    lines[2] = "\ta\n"
    for name, part in (("one", lines[:10]), ("two", lines[10:])):
        (tmp_path / f"{name}.tsv").write_text("".join(part))
    return [Source(path=str(tmp_path / "one.tsv"), repeat=2), Source(path=str(tmp_path / "two.tsv"))]


def reading(encoder: WordEncoder | None = None, *, split: Split = "train", empty: str = "skip") -> ReadingRules:
    rules = Rules.model_validate({"unknown_token": "keep", "empty": empty})
    return ReadingRules(Task(kind="translation"), rules, encoder or WordEncoder(WORDS), split=split)


def encoded(
    sources: list[Source], folder: Path, *, share: Share | None = None, encoder: WordEncoder | None = None
) -> list[int]:
    return list(encode_shards(sources, reading=reading(encoder), folder=folder, share=share or Share()))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_shares_of_several_processes_are_the_shards_of_one(sources: list[Source], tmp_path: Path) -> None:
    assert encoded(sources, tmp_path / "alone") == list(range(7))
    parts = [encoded(sources, tmp_path / "together", share=Share(first, of=3)) for first in (2, 0, 1)]
    assert parts == [[2, 5], [0, 3, 6], [1, 4]]
    assert content(tmp_path / "together") == content(tmp_path / "alone")
    assert count_shards(tmp_path / "alone") == 7


def test_a_shard_has_the_ids_the_repeats_and_the_lost_rows_of_its_records(
    sources: list[Source], tmp_path: Path
) -> None:
    encoded(sources, tmp_path / "shards")
    first, third = (read_shard(shard_path(tmp_path / "shards", number), reading=reading()) for number in (0, 2))
    assert first.ids[0].dtype == np.uint16
    assert first.ids[0].tolist() == [10, 10, 2, 11, 11, 2, 13, 10, 2]
    assert first.lengths[1].tolist() == [2, 2, 2]
    assert (first.repeats.tolist(), first.counts.num_rows) == ([2, 2, 2], 3)
    assert first.bad_rows == [("empty", "skip", 0, 1, [f"{sources[0].path}:3"])]
    assert third.repeats.tolist() == [2, 2, 1, 1]


def test_ids_take_16_bits_as_long_as_every_one_of_the_vocabulary_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    for size, expected in ((1 << 16, "<u2"), ((1 << 16) + 1, "<i4")):
        monkeypatch.setattr(WordEncoder, "vocabulary_size", size)
        assert shards.id_type(reading()) == expected


def test_only_missing_shards_are_made_again(sources: list[Source], tmp_path: Path) -> None:
    encoder = WordEncoder(WORDS)
    encoded(sources, tmp_path / "shards", encoder=encoder)
    before, calls = content(tmp_path / "shards"), encoder.num_calls
    for path in shard_path(tmp_path / "shards", 3).iterdir():
        path.unlink()
    shard_path(tmp_path / "shards", 3).rmdir()
    assert encoded(sources, tmp_path / "shards", encoder=encoder) == list(range(7))
    assert encoder.num_calls == calls + calls / 7
    assert content(tmp_path / "shards") == before


def test_complete_shards_are_taken_without_reading_the_data(sources: list[Source], tmp_path: Path) -> None:
    encoded(sources, tmp_path / "shards")
    for source in sources:
        Path(str(source.path)).unlink()
    made = make_shards(sources, reading=reading(), folder=tmp_path / "shards")
    assert list(made) == [shard_path(tmp_path / "shards", number) for number in range(7)]


def test_data_of_more_than_a_shard_are_encoded_elsewhere_and_taken_as_they_come(
    sources: list[Source], tmp_path: Path
) -> None:
    taken: list[int] = []

    def elsewhere(folder: Path) -> Iterator[None]:
        for share in (Share(1, of=2), Share(0, of=2)):
            for _ in encode_shards(sources, reading=reading(), folder=folder, share=share):
                yield
        assert len(taken) == 7

    for path in make_shards(sources, reading=reading(), folder=tmp_path / "shards", encode_elsewhere=elsewhere):
        taken.append(int(path.name))
    assert taken == list(range(7))


def test_data_of_one_shard_are_encoded_here(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("a\tb\n" * 4)

    def refuse(folder: Path) -> Iterator[None]:
        raise AssertionError(folder)

    made = make_shards(
        [Source(path=str(tmp_path / "a.tsv"))], reading=reading(), folder=tmp_path / "shards", encode_elsewhere=refuse
    )
    assert len(list(made)) == 1


def test_shards_that_vanish_are_missed(sources: list[Source], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="000000 is missing"):
        list(make_shards(sources, reading=reading(), folder=tmp_path / "s", encode_elsewhere=lambda folder: iter(())))


def test_every_record_of_a_share_beats_once_and_the_others_without_being_counted(
    sources: list[Source], tmp_path: Path
) -> None:
    beats: list[list[int]] = [[], []]
    for first in (0, 1):
        share = Share(first, of=2)
        made = encode_shards(sources, reading=reading(), folder=tmp_path / "s", share=share, beat=beats[first].append)
        assert len(list(made)) == 4 - first
    assert [sum(each) for each in beats] == [4 + 4 + 4 + 1, 12]
    assert [len(each) for each in beats] == [13, 13]
    again: list[int] = []
    list(encode_shards(sources, reading=reading(), folder=tmp_path / "s", beat=again.append))
    assert sum(again) == NUM_ROWS


def test_shards_that_nobody_went_on_with_for_a_week_are_removed(sources: list[Source], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    encoded(sources, cache / "old.shards")
    encoded(sources, cache / "new.shards")
    then = time.time() - 8 * 24 * 3600
    for path in (*(cache / "old.shards").iterdir(), cache / "old.shards"):
        os.utime(path, (then, then))
    tokens = prepare_token_set(sources, reading=reading(), cache_dir=cache)
    assert sorted(os.listdir(cache)) == sorted(["new.shards", tokens.name])


@pytest.mark.parametrize("moment", ["shards.write_shard", "sealed._read_seal", "merge.read_shard"])
def test_another_process_that_is_faster_and_removes_the_shards_does_no_harm(
    moment: str, sources: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As members of a sweep that start together."""
    module, name = moment.split(".")
    patched = {"shards": shards, "sealed": sealed, "merge": merge}[module]
    original, calls = getattr(patched, name), 0

    def prepare() -> Path:
        return prepare_token_set(sources, reading=reading(), cache_dir=tmp_path / "cache")

    def other_first(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            prepare()
        return original(*arguments, **keywords)

    monkeypatch.setattr(patched, name, other_first)
    made = prepare()
    assert calls > 3
    check_if_made(made)
    assert os.listdir(tmp_path / "cache") == [made.name]
    assert load_token_set(made).num_rows == 2 * 9 + 15


def test_a_refused_row_leaves_no_shard_of_its_own(sources: list[Source], tmp_path: Path) -> None:
    with pytest.raises(UnusableRowError, match=r"one\.tsv:3"):
        list(encode_shards(sources, reading=reading(empty="error"), folder=tmp_path / "shards"))
    assert list((tmp_path / "shards").iterdir()) == []


MOMENTS = {
    "in the middle of a shard": "shards.BadRowLog.save",
    "when a shard got its name": "shards.deque",
    "while shards are joined": "merge.read_shard",
}
"""What is called at each moment, for the fourth time."""

KILLED = """
import json, os, signal, sys
from pathlib import Path
from dstrain.config.data import Source
from dstrain.data import merge, shards
from dstrain.data.tokens import prepare_token_set
from tests.unit.data.test_shards import reading

place, cache, paths = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
shards.SHARD_RECORDS = 4
module, *within, name = place.split(".")
owner = {"shards": shards, "merge": merge}[module]
for each in within:
    owner = getattr(owner, each)
called, calls = getattr(owner, name), []

def call(*given, **named):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return called(*given, **named)

setattr(owner, name, call)
prepare_token_set([Source(**each) for each in paths], reading=reading(), cache_dir=cache)
"""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_preparation_goes_on_behind_the_last_complete_shard(
    moment: str, sources: list[Source], tmp_path: Path
) -> None:
    whole = load_token_set(prepare_token_set(sources, reading=reading(), cache_dir=tmp_path / "whole"))
    cache = tmp_path / "cache"
    given = json.dumps([source.model_dump(exclude_defaults=True) for source in sources])
    killed = subprocess.run([sys.executable, "-c", KILLED, MOMENTS[moment], str(cache), given], check=False)
    assert killed.returncode == -signal.SIGKILL
    (folder,) = cache.glob("*.shards")
    num_kept = len([path for path in folder.iterdir() if len(path.name) == 6])
    assert num_kept == (3 if moment == "in the middle of a shard" else 4)
    assert any(".tmp-" in path.name for path in cache.rglob("*"))
    encoder = WordEncoder(WORDS)
    tokens = load_token_set(prepare_token_set(sources, reading=reading(encoder), cache_dir=cache))
    assert encoder.num_calls == 7 - num_kept
    assert os.listdir(cache) == [tokens.folder.name]  # no shards and no drafts beside it
    assert content(tokens.folder) == content(whole.folder)
