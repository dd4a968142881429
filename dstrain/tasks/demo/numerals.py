"""Korean and English spelling of whole numbers. Knows nothing of counters, clocks or calendars.

Korean has two series: Sino-Korean (일, 이, 삼) for money, dates and minutes, native (하나, 둘, 셋) for hours and most
counters, up to 99. Spelling follows 한글 맞춤법 (Korean orthography, National Institute of Korean Language).
"""

_SINO_DIGITS = ("영", "일", "이", "삼", "사", "오", "육", "칠", "팔", "구")
_SINO_PLACES = ("", "십", "백", "천")
_NATIVE_ONES = ("", "하나", "둘", "셋", "넷", "다섯", "여섯", "일곱", "여덟", "아홉")
_NATIVE_TENS = ("", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔")
_BEFORE_COUNTER = {"하나": "한", "둘": "두", "셋": "세", "넷": "네"}

_BELOW_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ENGLISH_UNITS = ((1_000_000, "million"), (1_000, "thousand"), (100, "hundred"))
_IRREGULAR_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip


def sino(number: int) -> str:
    """Sino-Korean numeral of 0 to 99,999,999: 321 is 삼백이십일, 12,500 is 만 이천오백.

    Spaced by 만, the ten thousands (한글 맞춤법 제44항); 일 is left out before 십, 백, 천 and before 만 alone.
    Raises ValueError outside the range.
    """
    _require(number, low=0, high=99_999_999)
    ten_thousands, rest = divmod(number, 10_000)
    groups = []
    if ten_thousands:
        groups.append(("" if ten_thousands == 1 else _sino_group(ten_thousands)) + "만")
    if rest or not ten_thousands:
        groups.append(_sino_group(rest) if rest else _SINO_DIGITS[0])
    return " ".join(groups)


def _sino_group(number: int) -> str:
    spelled = ""
    for place in (3, 2, 1, 0):
        digit = number // 10**place % 10
        if digit:
            spelled += ("" if digit == 1 and place else _SINO_DIGITS[digit]) + _SINO_PLACES[place]
    return spelled


def native(number: int) -> str:
    """Native Korean numeral of 1 to 99, standing alone: 21 is 스물하나, in one word (한글 맞춤법 제44항).

    Raises ValueError outside the range: from 100 on Korean counts in the Sino-Korean series.
    """
    _require(number, low=1, high=99)
    tens, ones = divmod(number, 10)
    return _NATIVE_TENS[tens] + _NATIVE_ONES[ones]


def native_before_counter(number: int) -> str:
    """Native numeral of 1 to 99 as it stands before a counter: 두 (잔), 스물한 (살), 스무 (살).

    하나, 둘, 셋, 넷 and 스물 become 한, 두, 세, 네 and 스무; the last only when nothing follows (표준국어대사전). The
    few counters that take 석/넉 or 서/너 instead (표준어 사정 원칙 제17항: 냥, 되, 섬, 자; 돈, 말, 발, 푼) are not used here.
    Raises ValueError outside the range.
    """
    _require(number, low=1, high=99)
    tens, ones = divmod(number, 10)
    if number == 20:
        return "스무"
    return _NATIVE_TENS[tens] + _BEFORE_COUNTER.get(_NATIVE_ONES[ones], _NATIVE_ONES[ones])


def native_ordinal(number: int) -> str:
    """First word of `N번째` for 1 to 99: 첫 (번째), 두 (번째), 스무 (번째). Raises ValueError outside the range."""
    return "첫" if number == 1 else native_before_counter(number)


def with_particle(word: str, *, after_consonant: str, after_vowel: str) -> str:
    """Word with the particle that its last syllable needs: 잔을 but 개를.

    A precomposed syllable has a final consonant unless its index in the Unicode block is a multiple of 28 (The Unicode
    Standard, section 3.12, Hangul syllable composition).
    """
    return word + (after_consonant if (ord(word[-1]) - ord("가")) % 28 else after_vowel)


def cardinal(number: int) -> str:
    """English cardinal of 0 to 99,999,999, American style: 321 is `three hundred twenty-one`.

    Raises ValueError outside the range.
    """
    _require(number, low=0, high=99_999_999)
    if number < 20:
        return _BELOW_TWENTY[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return f"{_TENS[tens]}-{_BELOW_TWENTY[ones]}" if ones else _TENS[tens]
    size, name = next(unit for unit in _ENGLISH_UNITS if unit[0] <= number)
    above, rest = divmod(number, size)
    spelled = f"{cardinal(above)} {name}"
    return f"{spelled} {cardinal(rest)}" if rest else spelled


def ordinal(number: int) -> str:
    """English ordinal of 1 to 99,999,999: `twenty-first`. Raises ValueError outside the range."""
    _require(number, low=1, high=99_999_999)
    spelled = cardinal(number)
    start = max(spelled.rfind(" "), spelled.rfind("-")) + 1
    last = spelled[start:]
    regular = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return spelled[:start] + _IRREGULAR_ORDINALS.get(last, regular)


def year(number: int) -> str:
    """English reading of a year from 1900 to 2099: `nineteen oh five`, `two thousand nine`, `twenty twenty-four`.

    Raises ValueError outside the range.
    """
    _require(number, low=1900, high=2099)
    century, rest = divmod(number, 100)
    if century == 20 and rest < 10:
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def _require(number: int, *, low: int, high: int) -> None:
    if not low <= number <= high:
        raise ValueError(f"number {number:,} is outside the range {low:,} to {high:,}")
