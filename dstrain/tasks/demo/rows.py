"""The built-in demo data: both tasks, both splits, from a seed and without a download. Knows no tokens and no files.

Evaluation rows are made only of combinations and number ranges that no training row holds, for every seed (`phrases` and
`utterances` say which). The least-seen group, `ordinal` or `deep`, is about one training row in a hundred.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from dstrain.errors import UserError
from dstrain.tasks.demo import phrases
from dstrain.tasks.demo.utterances import draw_utterance
from dstrain.tasks.demo.vocabulary import Phrase

GENERATOR_VERSION = 1
"""Goes up whenever the same seed would give other rows, so that cached tokens are made anew."""

TRANSLATION_ROWS = {
    "number": (8_000, 120), "date": (5_000, 100), "time": (5_000, 100), "price": (6_000, 100), "counter": (3_500, 110),
    "sentence": (12_000, 120), "ordinal": (350, 40),
}  # fmt: skip
"""Rows of each group of the translation demo, in training and in evaluation."""

PARSING_ROWS = {
    "alarm": (3_000, 60), "timer": (2_000, 50), "weather": (3_000, 70), "message": (3_500, 70), "music": (2_000, 50),
    "call": (1_000, 40), "reminder": (3_500, 70), "nested": (3_500, 70), "deep": (250, 30),
}  # fmt: skip
"""As TRANSLATION_ROWS, for the parsing demo."""


@dataclass(frozen=True, slots=True)
class DemoRow:
    """A row as a file would give it, with the kind of phrase it is."""

    source: str
    target: str
    group: str


def demo_rows(task: Literal["translation", "parsing"], *, split: str, seed: int = 0) -> list[DemoRow]:
    """Rows of `split` `train` or `eval`, all sources distinct, in mixed order; the same for the same seed everywhere.

    Raises UserError for another task or split.
    """
    if task not in ("translation", "parsing") or split not in ("train", "eval"):
        raise UserError(f"there is no demo `{task}`, split `{split}`: take translation or parsing, train or eval")
    rng = Random(f"{task}/{split}/{seed}")
    num_rows = TRANSLATION_ROWS if task == "translation" else PARSING_ROWS
    draw = _draw_translation if task == "translation" else draw_utterance
    held_back = split == "eval"
    rows: dict[str, DemoRow] = {}
    for group, counts in num_rows.items():
        end = len(rows) + counts[held_back]
        while len(rows) < end:
            source, target = draw(rng, group, held_back=held_back)
            rows.setdefault(source, DemoRow(source, target, group))
    return sorted(rows.values(), key=lambda _: rng.random())


_DRAW: Mapping[str, Callable[..., Phrase]] = {
    "number": phrases.draw_number,
    "date": phrases.draw_date,
    "time": phrases.draw_time,
    "price": phrases.draw_price,
    "counter": phrases.draw_counter,
    "sentence": phrases.draw_sentence,
    "ordinal": phrases.draw_ordinal,
}


def _draw_translation(rng: Random, group: str, *, held_back: bool) -> tuple[str, str]:
    phrase = _DRAW[group](rng, held_back=held_back)
    return phrase.korean, phrase.english
