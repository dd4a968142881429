"""Spelled numbers against tables written by hand, and against readers written from the other end."""

import pytest

from dstrain.tasks.demo.numerals import (
    cardinal,
    native,
    native_before_counter,
    native_ordinal,
    ordinal,
    sino,
    with_particle,
    year,
)
from tests.unit.tasks.demo.numeral_readers import read_english, read_sino

SINO = {
    0: "영", 1: "일", 2: "이", 3: "삼", 4: "사", 5: "오", 6: "육", 7: "칠", 8: "팔", 9: "구", 10: "십", 11: "십일", 16: "십육",
    20: "이십", 21: "이십일", 99: "구십구", 100: "백", 101: "백일", 110: "백십", 111: "백십일", 321: "삼백이십일", 500: "오백",
    1_000: "천", 1_001: "천일", 1_100: "천백", 1_446: "천사백사십육", 1_998: "천구백구십팔", 2_024: "이천이십사", 9_009: "구천구",
    10_000: "만", 10_001: "만 일", 12_500: "만 이천오백", 20_000: "이만", 21_000: "이만 천", 34_500: "삼만 사천오백",
    100_000: "십만", 110_000: "십일만", 210_010: "이십일만 십", 1_000_000: "백만", 10_000_000: "천만",
    34_567_898: "삼천사백오십육만 칠천팔백구십팔",
}  # fmt: skip

NATIVE = """
하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉 열 열하나 열둘 열셋 열넷 열다섯 열여섯 열일곱 열여덟 열아홉 스물
스물하나 스물둘 스물셋 스물넷 스물다섯 스물여섯 스물일곱 스물여덟 스물아홉 서른
""".split()

BEFORE_COUNTER = """
한 두 세 네 다섯 여섯 일곱 여덟 아홉 열 열한 열두 열세 열네 열다섯 열여섯 열일곱 열여덟 열아홉 스무
스물한 스물두 스물세 스물네 스물다섯 스물여섯 스물일곱 스물여덟 스물아홉 서른
""".split()

ENGLISH = {
    0: "zero", 1: "one", 10: "ten", 12: "twelve", 13: "thirteen", 15: "fifteen", 20: "twenty", 21: "twenty-one",
    40: "forty", 58: "fifty-eight", 99: "ninety-nine", 100: "one hundred", 101: "one hundred one", 110: "one hundred ten",
    321: "three hundred twenty-one", 1_000: "one thousand", 1_001: "one thousand one", 12_500: "twelve thousand five hundred",
    100_000: "one hundred thousand", 324_500: "three hundred twenty-four thousand five hundred",
    1_000_000: "one million", 34_567_898: "thirty-four million five hundred sixty-seven thousand eight hundred ninety-eight",
}  # fmt: skip

ORDINALS = """
first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth
sixteenth seventeenth eighteenth nineteenth twentieth twenty-first twenty-second twenty-third twenty-fourth twenty-fifth
twenty-sixth twenty-seventh twenty-eighth twenty-ninth thirtieth thirty-first
""".split()


@pytest.mark.parametrize(("number", "spelled"), SINO.items())
def test_sino_korean_numerals_follow_the_orthography(number: int, spelled: str) -> None:
    assert sino(number) == spelled


def test_native_numerals_up_to_thirty_alone_and_before_a_counter() -> None:
    assert [native(number) for number in range(1, 31)] == NATIVE
    assert [native_before_counter(number) for number in range(1, 31)] == BEFORE_COUNTER


def test_native_tens_end_at_ninety_nine() -> None:
    tens = {40: "마흔", 50: "쉰", 60: "예순", 70: "일흔", 80: "여든", 90: "아흔"}
    assert {number: native(number) for number in tens} == tens
    assert native_before_counter(82) == "여든두"
    assert native_before_counter(94) == "아흔네"


def test_only_the_first_of_all_has_a_word_of_its_own_before_beonjjae() -> None:
    assert [native_ordinal(number) for number in (1, 2, 3, 11, 20, 21)] == ["첫", "두", "세", "열한", "스무", "스물한"]


@pytest.mark.parametrize(("number", "spelled"), ENGLISH.items())
def test_english_cardinals(number: int, spelled: str) -> None:
    assert cardinal(number) == spelled


def test_english_ordinals() -> None:
    assert [ordinal(number) for number in range(1, 32)] == ORDINALS
    assert ordinal(99) == "ninety-ninth"
    assert ordinal(100) == "one hundredth"
    assert ordinal(112) == "one hundred twelfth"


def test_years_are_read_as_people_read_them() -> None:
    spoken = {
        1900: "nineteen hundred", 1905: "nineteen oh five", 1998: "nineteen ninety-eight", 2000: "two thousand",
        2009: "two thousand nine", 2010: "twenty ten", 2024: "twenty twenty-four",
    }  # fmt: skip
    assert {number: year(number) for number in spoken} == spoken


def test_particles_follow_the_last_syllable() -> None:
    spelled = [
        with_particle(word, after_consonant="을", after_vowel="를") for word in ("잔", "개", "마리", "권", "명", "대")
    ]
    assert spelled == ["잔을", "개를", "마리를", "권을", "명을", "대를"]


@pytest.mark.parametrize(
    ("spell", "number"),
    [(sino, -1), (sino, 10**8), (native, 0), (native, 100), (native_before_counter, 100), (native_ordinal, 0)]
    + [(cardinal, -1), (cardinal, 10**8), (ordinal, 0), (year, 1899), (year, 2100)],
)  # fmt: skip
def test_numbers_outside_the_range_are_refused(spell: object, number: int) -> None:
    assert callable(spell)
    with pytest.raises(ValueError, match="is outside the range"):
        spell(number)


def test_spelled_numbers_are_read_back_to_their_value() -> None:
    for number in [*range(0, 20_000, 7), *range(20_000, 10**6, 997), *range(10**6, 10**8, 99_991)]:
        assert read_sino(sino(number)) == number
        assert read_english(cardinal(number)) == number


def test_three_hundred_thousand_numbers_have_spellings_of_their_own() -> None:
    assert len({sino(number) for number in range(300_000)}) == 300_000
    assert len({cardinal(number) for number in range(0, 300_000, 10)}) == 30_000
