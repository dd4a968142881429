"""Vocabulary: tables read without loss, and no word that two phrases would share."""

import re
from collections.abc import Sequence

import pytest

from dstrain.tasks.demo import vocabulary
from dstrain.tasks.demo.vocabulary import BEINGS, GOODS, MONTHS, SERVED, SINO_MEASURES, Phrase, Thing

COUNTED = (*SERVED, *GOODS, *BEINGS, *SINO_MEASURES)
PHRASES = {name: value for name, value in vars(vocabulary).items() if name.isupper() and isinstance(value[0], Phrase)}


def test_counted_things_have_a_counter_and_both_english_forms() -> None:
    for thing in COUNTED:
        assert re.fullmatch("[가-힣]*", thing.noun), thing
        assert re.fullmatch("[가-힣]+", thing.counter), thing
        assert thing.one, thing
        assert thing.many, thing


@pytest.mark.parametrize("things", [SERVED + GOODS + BEINGS, SINO_MEASURES])
def test_no_two_things_have_the_same_korean_or_english(things: Sequence[Thing]) -> None:
    assert len({(thing.noun, thing.counter) for thing in things}) == len(things)
    assert len({thing.one for thing in things}) == len(things)
    assert len({thing.many for thing in things}) == len(things)


@pytest.mark.parametrize("name", sorted(PHRASES))
def test_the_words_of_a_table_are_distinct_in_both_languages(name: str) -> None:
    table = PHRASES[name]
    assert len({phrase.korean for phrase in table}) == len({phrase.english for phrase in table}) == len(table)


def test_a_year_has_its_twelve_months_and_365_days() -> None:
    assert len(MONTHS) == 12
    assert sum(days for _, _, days in MONTHS) == 365
