"""The built-in demo data for each task and both splits, generated from a seed. Knows nothing of tokens or files.

Evaluation rows use only combinations and number ranges that occur in no training row of any seed (see `phrases` and
`utterances`). The rarest group, `ordinal`, `deep` or `two`, is about one training row in a hundred.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from dstrain.errors import UserError
from dstrain.tasks.demo import phrases
from dstrain.tasks.demo.corrections import draw_correction
from dstrain.tasks.demo.utterances import draw_utterance
from dstrain.tasks.demo.vocabulary import Phrase

GENERATOR_VERSION = 1
"""Increase it whenever the rows of a seed change, so that cached token sets are not used again."""

TRANSLATION_ROWS = {
    "number": (8_000, 120), "date": (5_000, 100), "time": (5_000, 100), "price": (6_000, 100), "counter": (3_500, 110),
    "sentence": (12_000, 120), "ordinal": (350, 40),
}  # fmt: skip
"""Rows of each group of the translation demo, in training and in evaluation."""

PARSING_ROWS = {
    "alarm": (3_000, 60), "timer": (2_000, 50), "weather": (3_000, 70), "message": (3_500, 70), "music": (2_000, 50),
    "call": (1_000, 40), "reminder": (3_500, 70), "nested": (3_500, 70), "deep": (250, 30),
}  # fmt: skip
"""The same for the parsing demo."""

TEXT_ROWS = {
    "swapped": (6_000, 100), "missing": (6_000, 100), "doubled": (4_000, 80), "joined": (4_000, 80),
    "unmarked": (3_000, 80), "right": (3_000, 80), "two": (300, 60),
}  # fmt: skip
"""The same for the text demo: corrections."""


@dataclass(frozen=True, slots=True)
class DemoRow:
    """A pair of texts, with the kind of phrase as its group."""

    source: str
    target: str
    group: str


def demo_rows(task: Literal["translation", "parsing", "text"], *, split: str, seed: int = 0) -> list[DemoRow]:
    """Rows of split `train` or `eval` in mixed order, all sources distinct; the same on every machine for the same seed.

    Raises UserError for another task or split.
    """
    if task not in _TASKS or split not in ("train", "eval"):
        raise UserError(
            f"there is no demo `{task}` with split `{split}`: use translation, parsing or text, and train or eval"
        )
    rng = Random(f"{task}/{split}/{seed}")
    num_rows, draw = _TASKS[task]
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


_TASKS: Mapping[str, tuple[Mapping[str, tuple[int, int]], Callable[..., tuple[str, str]]]] = {
    "translation": (TRANSLATION_ROWS, _draw_translation),
    "parsing": (PARSING_ROWS, draw_utterance),
    "text": (TEXT_ROWS, draw_correction),
}
"""Task -> numbers of its rows, and what draws one of a group."""
