"""The built-in demo data: distinct, disjoint, the same everywhere, and held out in earnest."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from typing import Literal

import pytest

from dstrain.tasks.demo.phrases import HELD_BACK_NUMBERS, HELD_BACK_YEARS
from dstrain.tasks.demo.rows import PARSING_ROWS, TRANSLATION_ROWS, DemoRow, demo_rows
from dstrain.tasks.demo.vocabulary import BEINGS, GOODS, MONTHS, RANKED, SERVED, SINO_MEASURES
from dstrain.tasks.parsing import from_pointer, is_valid_parse, task_tokens, to_pointer
from tests.unit.tasks.demo.numeral_readers import read_english, read_sino

Task = Literal["translation", "parsing"]
TASKS: tuple[Task, ...] = ("translation", "parsing")


# Pinned so that a change of the generator is noticed: raise GENERATOR_VERSION together with these.
CHECKSUMS = (
    ("translation", "train", "ce7ec1750c9a3554"),
    ("translation", "eval", "240dd5b62d3a75cb"),
    ("parsing", "train", "22aa62525d60033c"),
    ("parsing", "eval", "e1300bb007e4f88c"),
)


@cache
def rows_of(task: Task, split: str, seed: int = 0) -> list[DemoRow]:
    return demo_rows(task, split=split, seed=seed)


@pytest.mark.parametrize("task", TASKS)
def test_sources_are_distinct_and_no_evaluation_row_is_a_training_row(task: Task) -> None:
    sources = [row.source for split in ("train", "eval") for row in rows_of(task, split)]
    assert len(set(sources)) == len(sources)


@pytest.mark.parametrize("task", TASKS)
def test_no_seed_trains_on_the_evaluation_rows_of_another(task: Task) -> None:
    assert not {row.source for row in rows_of(task, "train", 1)} & {row.source for row in rows_of(task, "eval")}


@pytest.mark.parametrize("task", TASKS)
def test_every_group_has_its_number_of_rows_and_the_groups_are_mixed(task: Task) -> None:
    planned = TRANSLATION_ROWS if task == "translation" else PARSING_ROWS
    for place, split in enumerate(("train", "eval")):
        rows = rows_of(task, split)
        assert Counter(row.group for row in rows) == {group: counts[place] for group, counts in planned.items()}
        assert {row.group for row in rows[: len(rows) // 4]} == set(planned)


@pytest.mark.parametrize("task", TASKS)
def test_the_last_group_is_rare_in_training_only(task: Task) -> None:
    planned = TRANSLATION_ROWS if task == "translation" else PARSING_ROWS
    (train, evaluation), *_ = reversed(planned.values())
    assert train < 0.015 * sum(counts[0] for counts in planned.values())
    assert evaluation > 0.05 * sum(counts[1] for counts in planned.values())


def test_every_group_has_references_of_four_words_without_which_bleu_is_zero() -> None:
    long_enough = {row.group for row in rows_of("translation", "eval") if len(row.target.split()) >= 4}
    assert long_enough == set(TRANSLATION_ROWS)


@pytest.mark.parametrize("task", TASKS)
def test_another_seed_draws_other_rows(task: Task) -> None:
    same = {row.source for row in rows_of(task, "train")} & {row.source for row in rows_of(task, "train", 1)}
    assert len(same) < 0.8 * len(rows_of(task, "train"))


@pytest.mark.parametrize(("task", "split", "checksum"), CHECKSUMS)
def test_the_same_seed_gives_the_same_rows_on_every_machine(task: Task, split: str, checksum: str) -> None:
    text = "\n".join(f"{row.source}\t{row.target}\t{row.group}" for row in rows_of(task, split))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == checksum


@pytest.mark.parametrize(("task", "split"), [("translation", "validation"), ("summarisation", "train")])
def test_an_unknown_task_or_split_is_refused(task: Task, split: str) -> None:
    with pytest.raises(
        ValueError, match=f"no demo `{task}`, split `{split}`: take translation or parsing, train or eval"
    ):
        demo_rows(task, split=split)


# Translation: the parts of a phrase are found again in its text, not taken from the generator.

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


# Parsing

UTTERANCES = {
    "set an alarm for 4pm and another for 5pm": (
        "[IN:CREATE_ALARM [SL:DATE_TIME for 4 pm ] [SL:DATE_TIME for 5 pm ] ]",
        "[IN:CREATE_ALARM [SL:DATE_TIME <pt-3> <pt-4> <pt-5> ] [SL:DATE_TIME <pt-8> <pt-9> <pt-10> ] ]",
    ),
    "please call my sister on whatsapp": (
        "[IN:CREATE_CALL [SL:CONTACT [IN:GET_CONTACT [SL:CONTACT_RELATED my ] [SL:TYPE_RELATION sister ] ] ] "
        "[SL:NAME_APP whatsapp ] ]",
        "[IN:CREATE_CALL [SL:CONTACT [IN:GET_CONTACT [SL:CONTACT_RELATED <pt-2> ] [SL:TYPE_RELATION <pt-3> ] ] ] "
        "[SL:NAME_APP <pt-5> ] ]",
    ),
    "is it sunny in San Diego?": (
        "[IN:GET_WEATHER [SL:WEATHER_ATTRIBUTE sunny ] [SL:LOCATION San Diego ] ]",
        "[IN:GET_WEATHER [SL:WEATHER_ATTRIBUTE <pt-2> ] [SL:LOCATION <pt-4> <pt-5> ] ]",
    ),
}


def test_utterances_parsed_by_hand_are_among_the_generated_ones() -> None:
    generated = {row.source: row.target for split in ("train", "eval") for row in rows_of("parsing", split)}
    assert {utterance: generated.get(utterance) for utterance in UTTERANCES} == {
        utterance: parse for utterance, (parse, _) in UTTERANCES.items()
    }
    assert [to_pointer(utterance, parse=generated[utterance]).target for utterance in UTTERANCES] == [
        pointers for _, pointers in UTTERANCES.values()
    ]


def leaves_of(parse: str) -> list[tuple[str, str]]:
    """(slot, words) of the slots that hold words, without those that every utterance of a kind shares."""
    leaves = [(slot, words.strip()) for slot, words in re.findall(r"\[SL:(\w+) ((?:[^\[\]\s]+ )+)\]", parse)]
    return [(slot, words) for slot, words in leaves if words not in ("me", "my", "timer", "music")]


def test_every_parse_goes_through_the_pointer_form_and_back() -> None:
    for split in ("train", "eval"):
        for row in rows_of("parsing", split):
            pair = to_pointer(row.source, parse=row.target)
            assert is_valid_parse(row.target)
            assert from_pointer(pair.target, source=pair.source) == row.target


def test_the_pointer_form_is_exercised() -> None:
    pairs = [to_pointer(row.source, parse=row.target) for row in rows_of("parsing", "train")]
    changed = sum(pair.source != row.source for pair, row in zip(pairs, rows_of("parsing", "train"), strict=True))
    repeated = sum(
        len(set(words)) < len(words) for words in (row.target.split() for row in rows_of("parsing", "train")) if words
    )
    assert changed > 0.1 * len(pairs)
    assert repeated > 0.1 * len(pairs)


def test_utterances_are_short_and_labels_few() -> None:
    rows = rows_of("parsing", "train")
    assert max(len(row.source.split()) for row in rows) <= 16
    assert len(task_tokens(row.target for row in rows)) < 50


def test_intents_nest_in_the_groups_that_say_so() -> None:
    depths: dict[str, set[int]] = {}
    for row in rows_of("parsing", "train"):
        depths.setdefault(row.group, set()).add(row.target.count("[IN:"))
    assert depths.pop("deep") == {3}
    assert depths.pop("nested") == {2}
    assert set.union(*depths.values()) == {1}


def test_words_of_evaluation_utterances_and_labels_of_their_parses_are_all_seen_in_training() -> None:
    def words(split: str) -> set[str]:
        return {
            word for row in rows_of("parsing", split) for word in re.findall(r"[\w:\[]+", f"{row.source} {row.target}")
        }

    assert not {word for word in words("eval") - words("train") if not re.fullmatch(r"\d+[ap]m", word)}


def test_every_evaluation_utterance_holds_neighbouring_fillers_never_seen_together() -> None:
    train = [leaves_of(row.target) for row in rows_of("parsing", "train")]
    seen_leaves = {leaf for leaves in train for leaf in leaves}
    seen_pairs = {(one[1], other[1]) for leaves in train for one, other in pairwise(leaves)}
    for row in rows_of("parsing", "eval"):
        leaves = leaves_of(row.target)
        unseen_leaf = any(leaf not in seen_leaves for leaf in leaves)
        unseen_pair = any((one[1], other[1]) not in seen_pairs for one, other in pairwise(leaves))
        assert unseen_leaf or unseen_pair or len(leaves) == 1, row
