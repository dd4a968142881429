"""Token sets: every id where it belongs, every lost row counted, and a folder that is complete or absent."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dstrain.config.data import Rules, Source
from dstrain.config.recipe import Task
from dstrain.data import encoding
from dstrain.data.bad_rows import UnusableRowError
from dstrain.data.counts import Counts
from dstrain.data.encoding import ReadingRules, Split
from dstrain.data.examples import Example
from dstrain.data.tokens import TokenSet, build_token_set, load_token_set, prepare_token_set
from tests.unit.data.word_encoder import WordEncoder, make_example

TASK = Task(kind="translation", max_source_tokens=5, max_target_tokens=4)


def _build(
    examples: Sequence[Example],
    folder: Path,
    *,
    split: Split = "train",
    encoder: WordEncoder | None = None,
    **rules: Any,
) -> TokenSet:
    build_token_set(
        examples,
        reading=ReadingRules(
            TASK, Rules(**{"unknown_token": "keep", **rules}), encoder or WordEncoder("a b c d e f g"), split=split
        ),
        folder=folder,
    )
    return load_token_set(folder)


def _bad_rows(tokens: TokenSet) -> list[dict[str, str]]:
    lines = (tokens.folder / "bad_rows.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def _pairs(tokens: TokenSet) -> list[tuple[list[int], list[int]]]:
    return [(tokens.source(row).tolist(), tokens.target(row).tolist()) for row in range(tokens.num_rows)]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_ids_come_back_in_the_order_of_the_rows(tmp_path: Path) -> None:
    tokens = _build([make_example("a b", "c"), make_example("g", "f e d"), make_example("a", "a")], tmp_path / "set")
    assert _pairs(tokens) == [([10, 11, 2], [12, 2]), ([16, 2], [15, 14, 13, 2]), ([10, 2], [10, 2])]
    assert tokens.source_lengths.tolist() == [3, 2, 2]
    assert tokens.target_lengths.tolist() == [2, 4, 2]
    assert tokens.source(0).dtype == tokens.source_lengths.dtype == np.int32
    assert tokens.report["places"] == [["file", 3]]
    assert tokens.report["audit"]["rows"] == 3
    report = {name: value for name, value in tokens.report.items() if name not in ("places", "audit")}
    assert report == Counts(longest_target=4, longest_target_where="file:1").report() | {
        "pairs": [[None, None, "", 3]],
        "rows_read": 3,
        "distinct_rows": 3,
        "rows": 3,
        "skipped": {},
        "bad_places": {},
        "truncated": 0,
        "kept_with_unknown": 0,
        "kept_too_long": 0,
        "source_tokens": 7,
        "target_tokens": 8,
        "fingerprint": tokens.fingerprint,
        "sources": [],
        "by_source": [{"used": 3, "skipped": {}, "firsts": [["1", "a b", "c"], ["1", "g", "f e d"], ["1", "a", "a"]]}],
    }


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=25), st.integers(1, 9))
def test_the_size_of_the_batches_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, int]], batch_examples: int
) -> None:
    examples = [make_example("a " * source, "b " * target) for source, target in sizes]
    folder = tmp_path_factory.mktemp("sets")
    whole = _build(examples, folder / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "BATCH_EXAMPLES", batch_examples)
        parts = _build(examples, folder / "parts")
    assert _pairs(whole) == _pairs(parts)
    assert whole.fingerprint == parts.fingerprint


def test_a_repeated_row_is_stored_once_and_counted_as_often_as_it_appears(tmp_path: Path) -> None:
    tokens = _build([make_example("a b", "c", repeat=3), make_example("d", "e")], tmp_path / "set")
    assert _pairs(tokens) == [([10, 11, 2], [12, 2])] * 3 + [([13, 2], [14, 2])]
    assert (tmp_path / "set" / "source_ids.bin").stat().st_size == 2 * 5
    assert (tokens.report["distinct_rows"], tokens.report["rows"]) == (2, 4)
    assert (tokens.report["source_tokens"], tokens.report["target_tokens"]) == (11, 8)


def test_the_fingerprint_follows_the_ids_their_order_and_their_division(tmp_path: Path) -> None:
    sets = [
        [make_example("a b", "c"), make_example("d", "e")],
        [make_example("d", "e"), make_example("a b", "c")],
        [make_example("a", "c"), make_example("b d", "e")],
        [make_example("a b", "c"), make_example("d", "e", repeat=2)],
        [make_example("a b", "c"), make_example("d", "f")],
    ]
    fingerprints = [_build(examples, tmp_path / str(number)).fingerprint for number, examples in enumerate(sets)]
    again = [make_example("a b", "c", where="elsewhere:9"), make_example("d", "e")]
    assert len(set(fingerprints)) == len(sets)
    assert _build(again, tmp_path / "again").fingerprint == fingerprints[0]


LONG_SOURCE = make_example("a b c d e f", "a", where="f:1")
LONG_TARGET = make_example("a", "a b c d e", where="f:2")
LONG_BOTH = make_example("a b c d e f", "a b c d e", where="f:3")
FITS = make_example("a b c d", "a b c", where="f:4")


def test_training_rows_over_the_limits_are_cut_with_their_ends_kept(tmp_path: Path) -> None:
    tokens = _build([LONG_SOURCE, LONG_TARGET, LONG_BOTH, FITS], tmp_path / "set")
    assert tokens.source_lengths.tolist() == [5, 2, 5, 5]
    assert tokens.target_lengths.tolist() == [2, 4, 4, 4]
    assert all(source[-1] == target[-1] == 2 for source, target in _pairs(tokens))
    assert tokens.report["truncated"] == 3
    assert [(row["where"], row["action"]) for row in _bad_rows(tokens)] == [(f"f:{n}", "truncate") for n in (1, 2, 3)]
    assert _bad_rows(tokens)[1] == {"where": "f:2", "reason": "too_long", "text": "a b c d e", "action": "truncate"}


def test_references_are_never_cut_but_their_sources_are(tmp_path: Path) -> None:
    tokens = _build([LONG_SOURCE, LONG_TARGET, LONG_BOTH, FITS], tmp_path / "set", split="eval")
    assert tokens.source_lengths.tolist() == [5, 2, 5, 5]
    assert tokens.target_lengths.tolist() == [2, 6, 6, 4]
    assert tokens.examples == [LONG_SOURCE, LONG_TARGET, LONG_BOTH, FITS]
    assert (tokens.report["truncated"], tokens.report["kept_too_long"]) == (2, 1)
    assert [row["action"] for row in _bad_rows(tokens)] == ["truncate", "keep", "truncate"]


@pytest.mark.parametrize("split", ["train", "eval"])
def test_rows_over_the_limits_can_be_skipped(tmp_path: Path, split: Split) -> None:
    examples = [LONG_SOURCE, LONG_TARGET, LONG_BOTH, FITS]
    tokens = _build(examples, tmp_path / "set", split=split, too_long="skip")
    assert tokens.num_rows == 1
    assert tokens.report["skipped"] == {"too_long": 3}
    assert tokens.report["rows_read"] == 4


@pytest.mark.parametrize("example", [LONG_SOURCE, LONG_TARGET])
def test_rows_over_the_limits_can_be_refused(tmp_path: Path, example: Example) -> None:
    with pytest.raises(
        UnusableRowError, match=rf"{example.where}: .* tokens of at most .*data\.rules\.too_long to skip"
    ):
        _build([FITS, example], tmp_path / "set", too_long="error")
    assert _names(tmp_path) == []


def test_targets_that_the_vocabulary_does_not_cover_follow_their_rule(tmp_path: Path) -> None:
    examples = [make_example("a", "a"), make_example("a", "a ?", where="f:2"), make_example("?", "a")]
    with pytest.raises(UnusableRowError, match=r"f:2: .*'a \?'.*data\.rules\.unknown_token to skip or keep"):
        _build(examples, tmp_path / "error", unknown_token="error")
    kept = _build(examples, tmp_path / "keep", unknown_token="keep")
    skipped = _build(examples, tmp_path / "skip", unknown_token="skip")
    assert (kept.num_rows, kept.report["kept_with_unknown"]) == (3, 1)
    assert (skipped.num_rows, skipped.report["skipped"]) == (2, {"unknown_token": 1})


def test_evaluation_texts_come_back_whatever_they_contain(tmp_path: Path) -> None:
    example = make_example('a "b" \\n \u2028 \x85 한국어 \U0001f600', "a\tb", language="ko")
    tokens = _build([example, FITS], tmp_path / "set", split="eval")
    assert tokens.examples == [example, FITS]


def test_nothing_usable_is_refused_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.train has no usable row: 0 of 1 row used; 1 too long skipped\. Corr"):
        _build([LONG_SOURCE], tmp_path / "set", too_long="skip")
    with pytest.raises(ValueError, match=r"data\.eval has no usable row: it is empty\. Correct"):
        _build([], tmp_path / "set", split="eval")
    assert _names(tmp_path) == []


def test_a_failure_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    def examples() -> Iterator[Example]:
        yield FITS
        raise OSError("cable pulled")

    with pytest.raises(OSError, match="cable pulled"):
        _build(examples(), tmp_path / "set")  # type: ignore[arg-type]
    assert _names(tmp_path) == []


def test_the_first_of_two_processes_wins(tmp_path: Path) -> None:
    def examples() -> Iterator[Example]:
        yield FITS
        _build([FITS], tmp_path / "set")  # the other process finishes first

    tokens = _build(examples(), tmp_path / "set")  # type: ignore[arg-type]
    assert tokens.num_rows == 1
    assert _names(tmp_path) == ["set"]


def test_everything_is_on_disk_before_the_folder_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def record_sync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        fsync(descriptor)

    def record_rename(self: Path, target: Path) -> Path:
        assert {*_names(self), self.name} <= set(synced)
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "rename", record_rename)
    _build([FITS], tmp_path / "set", split="eval")
    assert len(synced) >= 10


def test_a_damaged_folder_is_refused_by_the_name_of_the_file(tmp_path: Path) -> None:
    tokens = _build([FITS], tmp_path / "set")
    (tokens.folder / "target_ids.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"target_ids\.bin: 8 bytes were written, found 0: delete .*set"):
        load_token_set(tokens.folder)
    (tokens.folder / "target_ids.bin").unlink()
    with pytest.raises(ValueError, match=r"target_ids\.bin: 8 bytes were written, found None"):
        load_token_set(tokens.folder)


def _prepare(path: Path, cache_dir: Path, *, encoder: WordEncoder, **changes: Any) -> TokenSet:
    reading = ReadingRules(TASK, Rules(unknown_token="keep", undecodable="skip"), encoder, split="train")
    reading = replace(reading, **changes)
    return load_token_set(prepare_token_set([Source(path=str(path))], reading=reading, cache_dir=cache_dir))


def test_every_lost_row_is_counted_and_listed_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"a\ta\n\xff\ta\n\ta\na\t?\na b c d e f\ta\na\tb\nno tab\n")
    tokens = _prepare(path, tmp_path / "cache", encoder=WordEncoder("a b c d e f"))
    listed = [(row["where"].removeprefix(f"{path}:"), row["reason"], row["action"]) for row in _bad_rows(tokens)]
    assert sorted(listed) == [
        ("2", "undecodable", "skip"),
        ("3", "empty", "skip"),
        ("4", "unknown_token", "keep"),
        ("5", "too_long", "truncate"),
        ("7", "undecodable", "skip"),
    ]
    report = tokens.report
    assert report["skipped"] == {"empty": 1, "undecodable": 2}
    assert report["skipped"] == Counter(reason for _, reason, action in listed if action == "skip")
    assert (report["rows_read"], report["rows"], report["truncated"], report["kept_with_unknown"]) == (7, 4, 1, 1)


def test_rows_are_counted_by_source_wherever_they_are_lost(tmp_path: Path) -> None:
    good, bad = tmp_path / "a.tsv", tmp_path / "b.tsv"
    good.write_bytes(b"a\tb\n" * 3)
    bad.write_bytes(b"no tab\n\ta\na\ta b c d e\na\tb\n")
    sources = [Source(path=str(good)), Source(path=str(bad), repeat=2), Source(path=str(good), max_rows=1)]
    rules = Rules(undecodable="skip", unknown_token="keep", too_long="skip")
    reading = ReadingRules(TASK, rules, WordEncoder("a b c d e"), split="train")
    report = load_token_set(prepare_token_set(sources, reading=reading, cache_dir=tmp_path / "cache")).report
    assert report["by_source"] == [
        {"used": 3, "skipped": {}, "firsts": [[line, "a", "b"] for line in "123"]},
        {"used": 1, "skipped": {"empty": 1, "too_long": 1, "undecodable": 1}, "firsts": [["4", "a", "b"]]},
        {"used": 1, "skipped": {}, "firsts": [["1", "a", "b"]]},
    ]
    bad.write_bytes(b"no tab\n")
    with pytest.raises(
        ValueError, match=rf"data\.train\.1 \({bad}\) has no usable row: 0 of 1 row used; 1 undecodable"
    ):
        prepare_token_set(sources, reading=reading, cache_dir=tmp_path / "cache")


def test_the_cache_is_used_until_something_that_decides_the_ids_changes(tmp_path: Path) -> None:
    path, cache_dir = tmp_path / "a.tsv", tmp_path / "cache"
    path.write_text("a\tb\n")
    encoder = WordEncoder("a b")
    _prepare(path, cache_dir, encoder=encoder)
    calls = encoder.num_calls
    _prepare(path, cache_dir, encoder=encoder)
    assert (encoder.num_calls, len(_names(cache_dir))) == (calls, 1)
    _prepare(path, cache_dir, encoder=WordEncoder("b a"))
    _prepare(path, cache_dir, encoder=encoder, split="eval")
    _prepare(path, cache_dir, encoder=encoder, task=Task(kind="translation", source_prefix="a "))
    _prepare(path, cache_dir, encoder=encoder, rules=Rules(unknown_token="skip"))
    path.write_text("a\ta\n")
    _prepare(path, cache_dir, encoder=encoder)
    assert len(_names(cache_dir)) == 6


def test_what_a_killed_process_leaves_is_not_a_token_set(tmp_path: Path) -> None:
    path, cache_dir = tmp_path / "a.tsv", tmp_path / "cache"
    path.write_text("a\tb\n")
    encoder = WordEncoder("a b")
    folder = _prepare(path, cache_dir, encoder=encoder).folder
    folder.rename(folder.with_name(f"{folder.name}.tmp-0123"))
    assert _prepare(path, cache_dir, encoder=encoder).folder == folder


@pytest.mark.real_data
def test_real_rows_keep_their_texts_and_their_number(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "ko_en/tatoeba.tsv"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    encoder = WordEncoder(" ".join({word for line in lines for word in line.split()}))
    tokens = _prepare(path, tmp_path / "cache", encoder=encoder, split="eval", task=Task(kind="translation"))
    assert tokens.num_rows == tokens.report["rows_read"] == 3_853
    assert [f"{example.raw_source}\t{example.raw_target}" for example in tokens.examples] == lines
    assert tokens.target_lengths.tolist() == [len(line.split("\t")[1].split()) + 1 for line in lines]


UTTERANCES = ["wake me at 7pm", "Ann messaged me", "play 80's rock and a very long song of many words", "stop"]
PARSES = ["[IN:A [SL:B at 7 pm ] ]", "[IN:A [SL:B me ] ]", "[IN:A [SL:B 80's rock ] [SL:B s ] ]", "[IN:A [SL:B op ] ]"]


@pytest.mark.parametrize("kind", ["translation", "plain", "words", "published"])
def test_what_a_model_reads_in_an_evaluation_does_not_depend_on_the_references(tmp_path: Path, kind: str) -> None:
    given: dict[str, Any] = {"kind": "translation" if kind == "translation" else "parsing", "max_source_tokens": 8}
    given |= {"form": "plain"} if kind == "plain" else {}
    given |= {"segmentation": kind} if kind in ("words", "published") else {}
    encoder = WordEncoder(" ".join([*UTTERANCES, "7 pm ssaged 80 ' s st op 's"]))
    rules = Rules(unknown_token="keep", unpointable="skip")
    reading = ReadingRules(Task(**given), rules, encoder, split="eval")

    def read(references: list[str], name: str) -> TokenSet:
        path = tmp_path / f"{name}.tsv"
        path.write_text("".join(f"{row[0]}\t{row[1]}\n" for row in zip(UTTERANCES, references, strict=True)))
        return load_token_set(prepare_token_set([Source(path=str(path))], reading=reading, cache_dir=tmp_path))

    def sources(tokens: TokenSet) -> list[list[int]]:
        return [tokens.source(row).tolist() for row in range(tokens.num_rows)]

    own, others = read(PARSES, "own"), read(["[IN:A ]"] * len(PARSES), "others")
    assert (sources(own) == sources(others)) == (kind != "published")
    if kind == "published":
        assert own.typed is not None
        assert others.typed is not None
        assert sources(own.typed) == sources(others.typed)
        assert (own.report["cut_by_reference"], others.report["cut_by_reference"]) == (4, 0)
