"""Near duplicates: those of a comparison of every training text with every evaluation text."""

import random
import re
from functools import cache

import pytest

from dstrain.data.near import MIN_SHARE, RUN, NearFinder
from dstrain.data.sources import Row


def row(source: str, target: str, where: str) -> Row:
    return Row(source, target, None, None, None, where)


@cache
def runs(text: str) -> frozenset[str]:
    letters = re.sub(r"[\W_]+", "", text.casefold())
    filled = letters + "\0" * (RUN - 1)
    return frozenset(filled[place : place + RUN] for place in range(len(letters)))


def is_near(one: str, other: str) -> bool:
    first, second = runs(one), runs(other)
    return bool(first | second) and len(first & second) >= MIN_SHARE * len(first | second)


def sentence(draw: random.Random, words: list[str]) -> str:
    return " ".join(draw.choice(words) for _ in range(draw.randrange(3, 25)))


def change(draw: random.Random, text: str) -> str:
    """The text with a word more, less or other, or with other marks and case."""
    words = text.split()
    place = draw.randrange(len(words))
    changes = [[*words, "also"], words[:place] + words[place + 1 :], [*words[:place], "xylophone", *words[place + 1 :]]]
    return draw.choice([*(" ".join(each) for each in changes), text.upper() + "!"])


@pytest.mark.parametrize("seed", range(3))
def test_near_duplicates_are_those_of_a_comparison_of_all_pairs(seed: int) -> None:
    draw = random.Random(seed)
    words = ["".join(draw.choice("abcdefgh") for _ in range(draw.randrange(1, 8))) for _ in range(60)]
    evaluation = [(sentence(draw, words), sentence(draw, words)) for _ in range(80)]
    train = [(sentence(draw, words), sentence(draw, words)) for _ in range(200)]
    train += [(change(draw, source), change(draw, target)) for source, target in evaluation[:60]]
    finder = NearFinder([(*pair, f"eval:{number}") for number, pair in enumerate(evaluation)])
    finder.add(row(*pair, f"train:{number}") for number, pair in enumerate(train))
    found = finder.shared()
    expected = {
        "near source": [any(is_near(mine[0], other[0]) for other in train) for mine in evaluation],
        "near target": [any(is_near(mine[1], other[1]) for other in train) for mine in evaluation],
        "near pair": [any(is_near(mine[0], o[0]) and is_near(mine[1], o[1]) for o in train) for mine in evaluation],
    }
    assert {way: each.eval_rows for way, each in found.items()} == {way: sum(each) for way, each in expected.items()}
    assert 20 < sum(expected["near source"]) < 80
    for mine, other in found["near source"].rows:
        assert is_near(evaluation[int(mine.split(":")[1])][0], train[int(other.split(":")[1])][0])


def test_a_text_without_letters_is_near_to_none() -> None:
    finder = NearFinder([("?!", "…", "eval:1"), ("ok", "ja", "eval:2")])
    finder.add([row("?!", "…", "train:1"), row("OK.", "Ja!", "train:2")])
    assert {each.rows for each in finder.shared().values()} == {(("eval:2", "train:2"),)}
