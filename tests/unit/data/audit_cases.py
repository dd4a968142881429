"""Rows of two made-up languages in two scripts, and faults of every kind that an audit looks for."""

import random
from collections.abc import Callable
from pathlib import Path

from dstrain.config.data import Rules, Source
from dstrain.config.recipe import Task
from dstrain.data.encoding import ReadingRules, Split
from dstrain.data.tokens import TokenSet, load_token_set, prepare_token_set
from dstrain.run_folder.audit import SetAudit, read_set
from tests.unit.data.word_encoder import WordEncoder

Pair = tuple[str, str]
Plant = Callable[[random.Random, list[Pair], int], Pair]

_DRAW = random.Random(0)
LATIN = ["".join(_DRAW.choice("abcdefghijklmnopqrst") for _ in range(_DRAW.randrange(2, 9))) for _ in range(900)]
CYRILLIC = ["".join(chr(0x3B0 + ord(letter) - ord("a") + 0x80) for letter in word) for word in LATIN]
NUMBERS = [str(number) for number in range(1000, 1100)]
TASK = Task(kind="translation", max_source_tokens=40, max_target_tokens=40)


def draw_pairs(number: int, *, seed: int = 1) -> list[Pair]:
    """Rows of a Cyrillic source and its Latin translation, word by word, a tenth with a number."""
    draw = random.Random(seed)
    pairs = []
    for _ in range(number):
        words = [min(int(draw.expovariate(0.01)), 899) for _ in range(draw.randrange(5, 20))]
        numeral = [draw.choice(NUMBERS)] if draw.random() < 0.1 else []
        source, target = ([language[word] for word in words] + numeral for language in (CYRILLIC, LATIN))
        pairs.append((" ".join(source), " ".join(target)))
    return pairs


def _other(pairs: list[Pair], place: int) -> Pair:
    return pairs[(place + 1) % len(pairs)]


PLANTS: dict[str, Plant] = {
    "swapped": lambda draw, pairs, place: pairs[place][::-1],
    "target_like_sources": lambda draw, pairs, place: (pairs[place][0], _other(pairs, place)[0]),
    "source_like_targets": lambda draw, pairs, place: (_other(pairs, place)[1], pairs[place][1]),
    "source_script": lambda draw, pairs, place: ("학교가 어디에 있습니까 알려 주세요", pairs[place][1]),
    "target_script": lambda draw, pairs, place: (pairs[place][0], "학교가 어디에 있습니까 알려 주세요"),
    "copied": lambda draw, pairs, place: (pairs[place][1] + " " + LATIN[0] * 9, pairs[place][1] + " " + LATIN[0] * 9),
    "source_control": lambda draw, pairs, place: (pairs[place][0] + "\ufffd", pairs[place][1]),
    "target_control": lambda draw, pairs, place: (pairs[place][0], pairs[place][1] + "\x07"),
    "length_ratio": lambda draw, pairs, place: (pairs[place][0].split()[0][:2], " ".join([pairs[place][1]] * 6)),
    "numbers": lambda draw, pairs, place: (pairs[place][0] + " 1999", pairs[place][1] + " 1899"),
}
"""Checks of the audit to a row that has the fault, made of the row at a place."""


def encoder() -> WordEncoder:
    return WordEncoder(" ".join([*LATIN, *CYRILLIC, *NUMBERS]), languages=())


def write(path: Path, pairs: list[Pair]) -> Source:
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
    return Source(path=str(path))


def make_set(
    sources: list[Source], *, folder: Path, split: Split = "train", held_out: bytes = b"", **rules: str
) -> TokenSet:
    """The token set of sources, whose audit is in its report."""
    all_rules = Rules.model_validate({"unknown_token": "keep", **rules})
    reading = ReadingRules(TASK, all_rules, encoder(), split=split, held_out=held_out)
    return load_token_set(prepare_token_set(sources, reading=reading, cache_dir=folder / "cache"))


def audit_of(tokens: TokenSet) -> SetAudit:
    return read_set(tokens.report["audit"])
