"""English sentences with a slip of the keyboard or the pen, each with the sentence that was meant.

Defines the slips. The sentences are those of `phrases`, so that what is held back there is held back here. Knows nothing of rows
or splits.
"""

from collections.abc import Callable, Mapping
from random import Random

from dstrain.tasks.demo import phrases
from dstrain.tasks.demo.draw import pick

SLIPS = ("swapped", "missing", "doubled", "joined", "unmarked", "right", "two")
"""Two letters swapped, one missing, a word twice, two words joined, capital and full stop missing; nothing; two slips."""
_SINGLE = ("swapped", "missing", "doubled", "joined")
_DRAW = (phrases.draw_sentence, phrases.draw_time, phrases.draw_date, phrases.draw_price, phrases.draw_counter)


def draw_correction(rng: Random, slip: str, *, held_back: bool) -> tuple[str, str]:
    """A sentence with a slip, and as it was meant. With `held_back` it has a part that is for evaluation only."""
    while True:
        draw = phrases.draw_sentence if slip == "unmarked" else pick(rng, _DRAW)
        meant = draw(rng, held_back=held_back).english
        first = pick(rng, _SINGLE)
        others = [other for other in _SINGLE if other != first]
        slips = {"right": [], "two": [first, pick(rng, others)]}.get(slip, [slip])
        written = meant
        for each in slips:
            written = _SLIP[each](rng, written)
        if (written == meant) == (not slips):
            return written, meant


def _swap(rng: Random, text: str) -> str:
    def swapped(word: str) -> str:
        place = 1 + int(rng.random() * (len(word) - 3))
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]

    return _in_a_long_word(rng, text, change=swapped)


def _leave_out(rng: Random, text: str) -> str:
    def shortened(word: str) -> str:
        place = 1 + int(rng.random() * (len(word) - 2))
        return word[:place] + word[place + 1 :]

    return _in_a_long_word(rng, text, change=shortened)


def _in_a_long_word(rng: Random, text: str, *, change: Callable[[str], str]) -> str:
    """Change a word of at least five letters, whose first letter and length still tell which one it is."""
    words = text.split(" ")
    places = [place for place, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
    if places:
        place = pick(rng, places)
        words[place] = change(words[place])
    return " ".join(words)


def _double(rng: Random, text: str) -> str:
    words = text.split(" ")
    place = int(rng.random() * len(words))
    return " ".join([*words[:place], words[place].rstrip(".,"), *words[place:]])


def _join(rng: Random, text: str) -> str:
    words = text.split(" ")
    place = int(rng.random() * (len(words) - 1))
    return " ".join([*words[:place], "".join(words[place : place + 2]), *words[place + 2 :]])


def _unmark(rng: Random, text: str) -> str:
    del rng
    return text[0].lower() + text[1:].rstrip(".")


_SLIP: Mapping[str, Callable[[Random, str], str]] = {
    "swapped": _swap,
    "missing": _leave_out,
    "doubled": _double,
    "joined": _join,
    "unmarked": _unmark,
}
