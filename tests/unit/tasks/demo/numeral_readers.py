"""Readers of spelled numbers, written from the other end than the spellers, as their independent reference."""

import re

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = [*enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)]


def read_sino(text: str) -> int:
    """Value of a Sino-Korean numeral, read digit by place."""

    def read_group(group: str) -> int:
        total, digit = 0, 0
        for syllable in group:
            if syllable in "십백천":
                total += max(digit, 1) * {"십": 10, "백": 100, "천": 1_000}[syllable]
                digit = 0
            else:
                digit = "영일이삼사오육칠팔구".index(syllable)
        return total + digit

    if "만" not in text:
        return read_group(text)
    above, below = text.split("만")
    return (read_group(above) or 1) * 10_000 + read_group(below.strip())


def read_english(text: str) -> int:
    """Value of an English cardinal, summed word by word."""
    small = {spelled: number for number, spelled in enumerate(_ONES)} | {spelled: 10 * n for n, spelled in _TENS}
    total, group = 0, 0
    for word in re.split(r"[ -]", text):
        if word == "hundred":
            group *= 100
        elif word in ("thousand", "million"):
            total += group * (1_000 if word == "thousand" else 1_000_000)
            group = 0
        else:
            group += small[word]
    return total + group
