"""Phrases: translated as by hand, and held-back parts never in training."""

import re
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import pytest

from dstrain.tasks.demo import phrases
from dstrain.tasks.demo.phrases import HELD_BACK_NUMBERS, HELD_BACK_YEARS
from dstrain.tasks.demo.rows import DemoRow
from dstrain.tasks.demo.vocabulary import BEINGS, GOODS, MONTHS, RANKED, SERVED, SINO_MEASURES, Phrase
from tests.unit.tasks.demo.demo_cases import rows_of
from tests.unit.tasks.demo.numeral_readers import read_english, read_sino

# The parts of a phrase are parsed from its text, not taken from the generator.

NOUNS = "|".join(thing.noun for thing in SERVED + GOODS + BEINGS)
MEASURES = "|".join(thing.counter for thing in SINO_MEASURES if thing.counter != "개월")
PARTS = re.compile(
    rf"(?<!\S)(?:(?:{NOUNS}) \S+ (?:잔|병|그릇|조각|개|권|장|대|자루|송이|켤레|벌|명|마리|그루|채)"
    rf"|(?:{'|'.join(month for month, _, _ in MONTHS)}) \S+ 일(?!요일)"
    rf"|\S+ 시 (?:반|\S+ 분)|\S+ 시간 \S+ 분|\S+(?: 시간| 개월)? 동안 \S+에|(?:\S+ )?\S+ (?:{MEASURES})|\S+ 개월(?! 동안)"
    rf"|\S+ 살|\S+ 층|\S+ 번 버스|\S+ 번(?!째| 버스)|\S+ 번째 (?:{'|'.join(thing.korean for thing in RANKED)}))"
)
NUMBER_WORD = "|".join(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand".split()
)
AMOUNT = re.compile(rf"((?:(?:{NUMBER_WORD})[ -])+)(?:won|dollars?)")


def parts_of(rows: Iterable[DemoRow]) -> set[str]:
    return {part for row in rows for part in PARTS.findall(row.source)}


def amounts_in(row: DemoRow) -> list[int]:
    spelled = [row.target] if row.group == "number" else AMOUNT.findall(row.target)
    return [read_english(text.strip()) for text in spelled]


def is_held_back_amount(amount: int) -> bool:
    return any(amount in numbers for numbers in HELD_BACK_NUMBERS)


def test_no_training_phrase_holds_an_amount_or_year_from_the_held_back_ranges() -> None:
    for row in rows_of("translation", "train"):
        assert not any(map(is_held_back_amount, amounts_in(row))), row
        assert not any(
            read_sino(text) in years for text in re.findall(r"(\S+) 년", row.source) for years in HELD_BACK_YEARS
        )


def test_every_part_of_an_evaluation_phrase_is_unseen_in_training() -> None:
    seen = parts_of(rows_of("translation", "train"))
    for row in rows_of("translation", "eval"):
        parts, amounts = parts_of([row]), amounts_in(row)
        assert parts or amounts, row
        assert not parts & seen, row
        assert all(map(is_held_back_amount, amounts)), row
        assert all(
            any(read_sino(text) in years for years in HELD_BACK_YEARS) for text in re.findall(r"(\S+) 년", row.source)
        )


def test_every_english_word_of_evaluation_is_seen_in_training() -> None:
    def words(split: str) -> set[str]:
        return {word for row in rows_of("translation", split) for word in re.findall(r"[\w']+", row.target)}

    assert words("eval") - words("train") == set()


def test_every_korean_word_of_evaluation_is_seen_in_training_or_made_of_seen_digits_at_their_places() -> None:
    def words(split: str) -> set[str]:
        return {word for row in rows_of("translation", split) for word in re.findall(r"\w+", row.source)}

    native = "열|스물|서른|마흔|쉰|예순|일흔|여든|아흔|하나|둘|셋|넷|다섯|여섯|일곱|여덟|아홉"
    digits = re.compile(rf"[일이삼사오육칠팔구]?[십백천만]|{native}|[일이삼사오육칠팔구]")
    seen_digits = {digit for word in words("train") for digit in digits.findall(word)}
    for word in words("eval") - words("train"):
        assert "".join(digits.findall(word)) == word
        assert set(digits.findall(word)) <= seen_digits


def test_a_translation_says_the_number_that_the_korean_says() -> None:
    for row in rows_of("translation", "train"):
        if row.group == "number" and re.fullmatch(r"[일이삼사오육칠팔구십백천만 ]+", row.source):
            assert read_sino(row.source) == read_english(row.target)


EXAMPLES = {
    "삼백이십일": "three hundred twenty-one",
    "오후 세 시 반": "half past three in the afternoon",
    "밤 열한 시 오 분 전": "five to eleven at night",
    "열한 시간 삼십 분": "eleven hours and thirty minutes",
    "유월 육 일": "June sixth",
    "시월 삼 일": "October third",
    "육 개월": "six months",
    "커피 두 잔": "two cups of coffee",
    "차 네 잔": "four cups of tea",
    "자동차 네 대": "four cars",
    "학생 스무 명": "twenty students",
    "스물한 살": "twenty-one years old",
    "십이 번 버스": "bus number twelve",
    "세 번": "three times",
    "쉰네 번째 문입니다.": "This is the fifty-fourth door.",
    "만 원": "ten thousand won",
    "오만 원": "fifty thousand won",
    "커피 두 잔 주세요.": "Please give me two cups of coffee.",
    "제 동생은 스무 살이에요.": "My younger sibling is twenty years old.",
    "사흘 동안 서울에 있었어요.": "I was in Seoul for three days.",
}


def test_rows_translated_by_hand_are_among_the_generated_ones() -> None:
    generated = {row.source: row.target for split in ("train", "eval") for row in rows_of("translation", split)}
    assert {korean: generated.get(korean) for korean in EXAMPLES} == EXAMPLES


@pytest.mark.parametrize("held_back", [False, True])
@pytest.mark.parametrize(
    "draw",
    [
        phrases.draw_number,
        phrases.draw_date,
        phrases.draw_time,
        phrases.draw_price,
        phrases.draw_counter,
        phrases.draw_ordinal,
        phrases.draw_sentence,
    ],
)
def test_every_kind_is_drawn_from_the_seed_alone(draw: Callable[..., Phrase], held_back: bool) -> None:
    def drawn(seed: int) -> list[Any]:
        rng = Random(seed)
        return [draw(rng, held_back=held_back) for _ in range(20)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
