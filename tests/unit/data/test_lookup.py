"""From a row's number back to its text: agrees with the token set, whatever was skipped, repeated or cut before it."""

from pathlib import Path
from typing import Any

import pytest

from dstrain.config.data import Rules, Source
from dstrain.config.recipe import Task
from dstrain.data.encoding import ReadingRules
from dstrain.data.lookup import locate_rows
from dstrain.data.tokens import load_token_set, prepare_token_set
from tests.unit.data.word_encoder import WordEncoder

TASK = Task(kind="translation", max_source_tokens=5, max_target_tokens=4)
FIRST = ["a b\tc", "\tb", "a b c d e f\tg", "a\tx", "b\ta b c d e", "g\tg"]
"""Whole, an empty source, a long source, an unknown target, a long target, whole."""
SECOND = ["c c\td", "d\tx", "e\te"]


def write_sources(folder: Path) -> list[Source]:
    (folder / "first.tsv").write_text("\n".join(FIRST) + "\n")
    (folder / "second.tsv").write_text("\n".join(SECOND) + "\n")
    return [Source(path=str(folder / "first.tsv"), repeat=2), Source(path=str(folder / "second.tsv"), repeat=3)]


def read_with(encoder: WordEncoder, **rules: Any) -> ReadingRules:
    return ReadingRules(TASK, Rules(**rules), encoder, split="train")


@pytest.mark.parametrize("too_long", ["skip", "truncate"])
@pytest.mark.parametrize("unknown_token", ["skip", "keep"])
def test_every_row_of_a_token_set_is_found_with_the_text_it_was_made_of(
    tmp_path: Path, too_long: Any, unknown_token: Any
) -> None:
    sources = write_sources(tmp_path)
    encoder = WordEncoder("a b c d e f g")
    reading = read_with(encoder, empty="skip", too_long=too_long, unknown_token=unknown_token)
    tokens = load_token_set(prepare_token_set(sources, reading=reading, cache_dir=tmp_path / "cache"))
    located = locate_rows(range(tokens.num_rows), sources=sources, reading=reading)
    assert sorted(located) == list(range(tokens.num_rows))
    for row, (where, source, target) in located.items():
        ids, labels = encoder.encode([source], [target], source_language=None, target_language=None)
        assert encoder.truncate(ids[0], max_tokens=5) == tokens.source(row).tolist()
        assert encoder.truncate(labels[0], max_tokens=4) == tokens.target(row).tolist()
        path, line = where.rsplit(":", 1)
        assert Path(path).read_text().splitlines()[int(line) - 1] == f"{source}\t{target}"
    assert locate_rows([tokens.num_rows - 1], sources=sources, reading=reading) == {
        tokens.num_rows - 1: (f"{tmp_path / 'second.tsv'}:3", "e", "e")
    }


def test_numbers_beyond_the_data_are_not_found(tmp_path: Path) -> None:
    sources = write_sources(tmp_path)
    reading = read_with(WordEncoder("a"), unknown_token="keep")
    assert list(locate_rows([1, 999], sources=sources, reading=reading)) == [1]
    assert locate_rows([], sources=sources, reading=reading) == {}


def test_rows_after_the_last_wanted_one_are_not_read(tmp_path: Path) -> None:
    sources = [*write_sources(tmp_path), Source(path=str(tmp_path / "gone.tsv"))]
    reading = read_with(WordEncoder("a b c d e f g"), unknown_token="keep")
    assert locate_rows([0], sources=sources, reading=reading)[0].source == "a b"
