"""Builds token sets for the tests of this room."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dstrain.config.data import Rules
from dstrain.config.recipe import Task
from dstrain.data.encoding import ReadingRules
from dstrain.data.tokens import TokenSet, build_token_set, load_token_set
from tests.unit.data.word_encoder import WordEncoder, make_example


@pytest.fixture
def build_tokens(tmp_path: Path) -> Callable[[Sequence[tuple[int, int]]], TokenSet]:
    """Builds a token set of rows with the given numbers of source and target tokens."""

    def build(lengths: Sequence[tuple[int, int]]) -> TokenSet:
        encoder = WordEncoder(" ".join(f"w{number}" for number in range(100)))
        examples = [
            make_example(
                " ".join(f"w{(row + place) % 100}" for place in range(source - 1)),
                " ".join(f"w{(row + 7 * place) % 100}" for place in range(target - 1)),
            )
            for row, (source, target) in enumerate(lengths)
        ]
        reading = ReadingRules(Task(kind="translation"), Rules(unknown_token="keep"), encoder, split="train")
        folder = tmp_path / "tokens"
        build_token_set(examples, reading=reading, folder=folder)
        return load_token_set(folder)

    return build
