"""Encoding: languages and order kept, few examples held, and the rules for long and unknown text."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from dstrain.config.data import Rules
from dstrain.config.recipe import Task
from dstrain.data import encoding
from dstrain.data.bad_rows import BadRow, UnusableRowError
from dstrain.data.encoding import Encoded, ReadingRules, Split, encode_examples
from dstrain.data.examples import Example
from dstrain.errors import UserError
from tests.unit.data.word_encoder import WordEncoder, make_example

TASK = Task(kind="translation", max_source_tokens=5, max_target_tokens=4)


def encode(
    examples: Iterable[Example], *, encoder: WordEncoder | None = None, split: Split = "train", **rules: Any
) -> tuple[list[Encoded], list[BadRow]]:
    bad: list[BadRow] = []
    reading = ReadingRules(
        TASK, Rules(**{"unknown_token": "keep", **rules}), encoder or WordEncoder("a b c d e f g"), split=split
    )
    batches = encode_examples(examples, reading=reading, on_bad=bad.append)
    return [item for batch in batches for item in batch], bad


def test_rows_of_mixed_languages_keep_their_order_and_get_their_own_codes() -> None:
    languages = ["ko", "en", "ko", None, "de", "en"]
    encoder = WordEncoder("a")
    encoded, _ = encode([make_example("a", "a", language=code) for code in languages], encoder=encoder)
    assert [item.target_ids[0] for item in encoded] == [3, 4, 3, 10, 5, 4]
    assert encoder.num_calls == 4


def test_no_more_than_a_batch_of_examples_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BATCH_EXAMPLES", 10)
    encoder = WordEncoder("a")
    ahead: list[int] = []

    def examples() -> Iterator[Example]:
        for number in range(100):
            ahead.append(number - 10 * encoder.num_calls)
            yield make_example("a", "a")

    assert len(encode(examples(), encoder=encoder)[0]) == 100
    assert max(ahead) < 10


LONG_SOURCE = make_example("a b c d e f", "a", where="f:1")
LONG_TARGET = make_example("a", "a b c d e", where="f:2")


@pytest.mark.parametrize(("split", "target_tokens", "action"), [("train", 4, "truncate"), ("eval", 6, "keep")])
def test_a_long_target_is_cut_for_training_and_kept_as_a_reference(
    split: Split, target_tokens: int, action: str
) -> None:
    encoded, bad = encode([LONG_TARGET], split=split)
    assert len(encoded[0].target_ids) == target_tokens
    assert bad == [BadRow("f:2", "too_long", "a b c d e", action)]  # type: ignore[arg-type]


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_long_source_is_cut_in_both_splits(split: Split) -> None:
    encoded, bad = encode([LONG_SOURCE], split=split)
    assert len(encoded[0].source_ids) == 5
    assert [row.action for row in bad] == ["truncate"]


def test_skipped_rows_are_missing_and_reported() -> None:
    encoded, bad = encode([LONG_SOURCE, make_example("a", "?", where="f:3")], too_long="skip", unknown_token="skip")
    assert encoded == []
    assert [(row.where, row.reason) for row in bad] == [("f:1", "too_long"), ("f:3", "unknown_token")]


def test_a_target_outside_the_vocabulary_is_refused_where_its_rule_is_error() -> None:
    with pytest.raises(UnusableRowError, match=r"f:3: .*not in the vocabulary \(they become token 1\)"):
        encode([make_example("a", "?", where="f:3")], unknown_token="error")


def test_a_tokenizer_without_an_unknown_token_covers_everything() -> None:
    encoder = WordEncoder("a")
    encoder.unk_token_id = None
    encoded, bad = encode([make_example("a", "?")], encoder=encoder, unknown_token="error")
    assert (len(encoded), bad) == (1, [])


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_limit_without_room_for_special_tokens_is_named_by_its_key(
    side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(encoder: WordEncoder, ids: list[int], *, max_tokens: int) -> list[int]:
        raise UserError(f"a limit of {max_tokens} tokens leaves no room")

    monkeypatch.setattr(WordEncoder, "truncate", refuse)
    long = {"source": "a", "target": "a"} | {side: "a b c d e f g"}
    with pytest.raises(UserError, match=rf"^task\.max_{side}_tokens: a limit of \d tokens leaves no room"):
        encode([make_example(**long)])
