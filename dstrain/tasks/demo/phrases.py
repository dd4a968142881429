"""Korean phrases of numbers, dates, times, prices and counts, each with its one English translation.

Defines the grammar and what is held back from training: ranges of numbers and years, and a tenth of all combinations
(count and thing, day and month, minute and hour). A held-back part occurs in no training phrase, not even inside a
sentence, and a held-back phrase has no other parts. Knows nothing of rows, splits or seeds.

Spelling follows 한글 맞춤법 (Korean orthography, National Institute of Korean Language): a counter stands apart from its
numeral (제43항), numbers are spaced by 만 (제44항), June and October are 유월 and 시월 (제52항).
"""

from collections.abc import Callable, Sequence
from random import Random

from dstrain.tasks.demo.draw import is_held_back, pick
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
from dstrain.tasks.demo.vocabulary import (
    BEINGS,
    CITIES,
    EVENTS,
    GOODS,
    MONTHS,
    NATIVE_DAYS,
    PARTS_OF_DAY,
    RANKED,
    RELATIVES,
    SERVED,
    SINO_MEASURES,
    TRANSPORT,
    WEEKDAYS,
    Phrase,
    Thing,
)

HELD_BACK_NUMBERS = (
    range(64, 67),
    range(430, 470),
    range(4_500, 5_000),
    range(62_000, 66_000),
    range(240_000, 260_000),
)
"""Numbers and prices that are not in the training data; each of their digits is, at the same position."""

HELD_BACK_YEARS = (range(1973, 1977), range(2014, 2017))
"""Years that are not in the training data."""

TRAINING_YEARS = range(1930, 2040)
"""Years of dates, besides the held-back ones, which are excluded."""

MAX_NUMBER = 999_999
"""Largest number drawn."""

MAX_RANK = 60
"""Highest floor, and highest ordinal."""


def draw_number(rng: Random, *, held_back: bool) -> Phrase:
    """A number alone, up to six digits; below 100 in either series: 삼백이십일, 스물하나."""
    number = _draw_number(rng, up_to=pick(rng, (99, 999, 999, 9_999, 9_999, 99_999, MAX_NUMBER)), held_back=held_back)
    spelled = native(number) if number < 100 and rng.random() < 0.5 else sino(number)
    return Phrase(spelled, cardinal(number))


def _draw_number(rng: Random, *, up_to: int, held_back: bool, step: int = 1) -> int:
    """A multiple of `step`, inside or outside the held-back ranges; inside, `up_to` plays no part."""
    while True:
        numbers = pick(rng, HELD_BACK_NUMBERS) if held_back else range(1, up_to + 1)
        number = pick(rng, numbers) // step * step
        if number and held_back == any(number in numbers for numbers in HELD_BACK_NUMBERS):
            return number


def draw_date(rng: Random, *, held_back: bool) -> Phrase:
    """A day of a month, alone, with its year or with a weekday: 이천이십사 년 유월 십오 일."""
    day = _draw_day(rng, held_back=held_back)
    form = pick(rng, ("day", "year", "weekday"))
    if form == "year":
        number = pick(rng, pick(rng, HELD_BACK_YEARS) if held_back else _YEARS_TO_TRAIN)
        return Phrase(f"{sino(number)} 년 {day.korean}", f"{day.english}, {year(number)}")
    return _on_weekday(rng, day) if form == "weekday" else day


_YEARS_TO_TRAIN = [number for number in TRAINING_YEARS if not any(number in years for years in HELD_BACK_YEARS)]


def _draw_day(rng: Random, *, held_back: bool) -> Phrase:
    while True:
        month, english, num_days = pick(rng, MONTHS)
        day = pick(rng, range(1, num_days + 1))
        if is_held_back("date", english, day) == held_back:
            return Phrase(f"{month} {sino(day)} 일", f"{english} {ordinal(day)}")


def _on_weekday(rng: Random, day: Phrase) -> Phrase:
    weekday = pick(rng, WEEKDAYS)
    return Phrase(f"{day.korean} {weekday.korean}", f"{weekday.english}, {day.english}")


def draw_time(rng: Random, *, held_back: bool) -> Phrase:
    """A time of day, with or without a weekday, or a span of hours and minutes: 오후 세 시 반, 두 시간 십 분."""
    form = pick(rng, ("clock", "weekday", "weekday", "span"))
    if form == "span":
        return _draw_span(rng, held_back=held_back)
    clock = _draw_clock(rng, held_back=held_back)
    if form == "clock":
        return clock
    weekday = pick(rng, WEEKDAYS)
    return Phrase(f"{weekday.korean} {clock.korean}", f"{clock.english} on {weekday.english}")


def _draw_clock(rng: Random, *, held_back: bool) -> Phrase:
    """Hours take native numerals, minutes Sino-Korean ones: 밤 열한 시 십 분. Full hours are never held back."""
    while True:
        part, hours, english_part = pick(rng, PARTS_OF_DAY)
        hour = pick(rng, hours)
        form = pick(rng, ("full", "half", "to", "past", "past", "past"))
        minute = {"full": 0, "half": 30, "to": pick(rng, (5, 10, 15, 20)), "past": pick(rng, range(1, 60))}[form]
        if (form != "full" and is_held_back("time", hour, minute)) == held_back:
            break
    korean, english = {
        "full": ("", f"{cardinal(hour)} o'clock"),
        "half": (" 반", f"half past {cardinal(hour)}"),
        "to": (f" {sino(minute)} 분 전", f"{cardinal(minute)} to {cardinal(hour)}"),
        "past": (f" {sino(minute)} 분", f"{cardinal(hour)} {'oh ' if minute < 10 else ''}{cardinal(minute)}"),
    }[form]
    return Phrase(f"{part} {native_before_counter(hour)} 시{korean}", f"{english} {english_part}")


def _draw_span(rng: Random, *, held_back: bool) -> Phrase:
    while True:
        hours, minutes = pick(rng, range(1, 25)), pick(rng, range(1, 60))
        if is_held_back("span", hours, minutes) == held_back:
            break
    return Phrase(
        f"{native_before_counter(hours)} 시간 {sino(minutes)} 분",
        f"{_several(hours, 'hour', 'hours')} and {_several(minutes, 'minute', 'minutes')}",
    )


def draw_price(rng: Random, *, held_back: bool) -> Phrase:
    """A sum in won or dollars, alone or for so many of something: 사과 세 개에 오천 원."""
    amount = _draw_amount(rng, held_back=held_back)
    if rng.random() < 0.5:
        return amount
    count = _draw_things(rng, SERVED + GOODS, held_back=held_back)
    return Phrase(f"{count.korean}에 {amount.korean}", f"{amount.english} for {count.english}")


def _draw_amount(rng: Random, *, held_back: bool) -> Phrase:
    if rng.random() < 0.25:
        while (dollars := _draw_number(rng, up_to=999, held_back=held_back)) > 999:
            pass
        return Phrase(f"{sino(dollars)} 달러", _several(dollars, "dollar", "dollars"))
    up_to, step = pick(rng, ((9_999, 100), (99_999, 100), (99_999, 1_000), (MAX_NUMBER, 1_000)))
    won = _draw_number(rng, up_to=up_to, held_back=held_back, step=step)
    return Phrase(f"{sino(won)} 원", f"{cardinal(won)} won")


def draw_counter(rng: Random, *, held_back: bool) -> Phrase:
    """So many of something, an age, a floor, a bus: 커피 두 잔, 스무 살, 삼 층, 십이 번 버스, 세 번."""
    kinds: Sequence[Callable[..., Phrase]] = (_draw_age, _draw_floor, _draw_bus, _draw_times, _draw_measure)
    if rng.random() < 0.2:
        return pick(rng, kinds)(rng, held_back=held_back)
    return _draw_things(rng, SERVED + GOODS + BEINGS, held_back=held_back)


def _draw_things(rng: Random, things: Sequence[Thing], *, held_back: bool) -> Phrase:
    thing, number = _pick_counted(rng, things, held_back=held_back)
    korean = f"{thing.noun} {native_before_counter(number)} {thing.counter}"
    return Phrase(korean, _several(number, thing.one, thing.many))


def _draw_measure(rng: Random, *, held_back: bool) -> Phrase:
    thing, number = _pick_counted(rng, SINO_MEASURES, held_back=held_back)
    korean = f"{thing.noun} {sino(number)} {thing.counter}".strip()
    return Phrase(korean, _several(number, thing.one, thing.many))


def _pick_counted(rng: Random, things: Sequence[Thing], *, held_back: bool) -> tuple[Thing, int]:
    """A single one is never held back, because the English singular occurs nowhere else."""
    while True:
        thing, number = pick(rng, things), _draw_count(rng)
        if (number > 1 and is_held_back(thing.one, number)) == held_back:
            return thing, number


def _draw_age(rng: Random, *, held_back: bool) -> Phrase:
    number = _draw_count_of(rng, "age", held_back=held_back)
    return Phrase(f"{native_before_counter(number)} 살", f"{_several(number, 'year', 'years')} old")


def _draw_floor(rng: Random, *, held_back: bool) -> Phrase:
    number = _draw_count_of(rng, "floor", held_back=held_back, up_to=MAX_RANK)
    return Phrase(f"{sino(number)} 층", f"the {ordinal(number)} floor")


def _draw_bus(rng: Random, *, held_back: bool) -> Phrase:
    """번 numbers things in the Sino-Korean series and counts occasions in the native one (see _draw_times)."""
    number = _draw_count_of(rng, "bus", held_back=held_back)
    return Phrase(f"{sino(number)} 번 버스", f"bus number {cardinal(number)}")


def _draw_times(rng: Random, *, held_back: bool) -> Phrase:
    number = _draw_count_of(rng, "times", held_back=held_back)
    return Phrase(f"{native_before_counter(number)} 번", _several(number, "time", "times"))


def _draw_count_of(rng: Random, name: str, *, held_back: bool, up_to: int = 99) -> int:
    while True:
        number = _draw_count(rng)
        if number <= up_to and is_held_back(name, number) == held_back:
            return number


def _draw_count(rng: Random) -> int:
    """1 to 99, where native numerals end; half of them up to a dozen, as in life."""
    return pick(rng, range(1, 13) if rng.random() < 0.5 else range(1, 100))


def _several(number: int, one: str, many: str) -> str:
    return f"{cardinal(number)} {one if number == 1 else many}"


def draw_ordinal(rng: Random, *, held_back: bool) -> Phrase:
    """The rare kind: 첫 번째 질문입니다. Sentences, because BLEU is 0 if no text has four words."""
    while True:
        thing, number = pick(rng, RANKED), pick(rng, range(1, MAX_RANK + 1))
        if is_held_back(thing.english, "rank", number) == held_back:
            korean = f"{native_ordinal(number)} 번째 {thing.korean}입니다."
            return Phrase(korean, f"This is the {ordinal(number)} {thing.english}.")


def draw_sentence(rng: Random, *, held_back: bool) -> Phrase:
    """A sentence around one to three of the other phrases: 회의는 유월 십오 일 오후 세 시입니다."""
    frames: Sequence[Callable[..., Phrase]] = (_say_count, _say_price, _say_when, _say_event, _say_number, _say_stay)
    return pick(rng, frames)(rng, held_back=held_back)


def _say_count(rng: Random, *, held_back: bool) -> Phrase:
    verb = pick(rng, ("give", "bought", "saw", "are", "ordered"))
    things = {"give": SERVED, "bought": GOODS, "ordered": SERVED}.get(verb, BEINGS)
    count = _draw_things(rng, things, held_back=held_back)
    count_object = with_particle(count.korean, after_consonant="을", after_vowel="를")
    if verb == "give":
        return Phrase(f"{count.korean} 주세요.", f"Please give me {count.english}.")
    if verb == "bought":
        return Phrase(f"{count_object} 샀어요.", f"I bought {count.english}.")
    if verb == "saw":
        return Phrase(f"{count_object} 봤어요.", f"I saw {count.english}.")
    if verb == "are":
        subject = with_particle(count.korean, after_consonant="이", after_vowel="가")
        return Phrase(
            f"{subject} 있어요.", f"There {'is' if count.english.startswith('one ') else 'are'} {count.english}."
        )
    clock = _draw_clock(rng, held_back=held_back)
    return Phrase(f"{clock.korean}에 {count_object} 주문했어요.", f"I ordered {count.english} at {clock.english}.")


def _say_price(rng: Random, *, held_back: bool) -> Phrase:
    amount = _draw_amount(rng, held_back=held_back)
    form = pick(rng, ("each", "total", "spent"))
    if form == "each":
        count = _draw_things(rng, SERVED + GOODS, held_back=held_back)
        return Phrase(f"{count.korean}에 {amount.korean}입니다.", f"It is {amount.english} for {count.english}.")
    if form == "total":
        return Phrase(f"전부 {amount.korean}입니다.", f"It is {amount.english} in total.")
    spent = with_particle(amount.korean, after_consonant="을", after_vowel="를")
    return Phrase(f"어제 {spent} 썼어요.", f"I spent {amount.english} yesterday.")


def _say_when(rng: Random, *, held_back: bool) -> Phrase:
    form = pick(rng, ("at", "on", "leaves", "arrives", "birthday"))
    if form == "on":
        date = draw_date(rng, held_back=held_back)
        return Phrase(f"{date.korean}에 만나요.", f"Let's meet on {date.english}.")
    if form == "birthday":
        day = _draw_day(rng, held_back=held_back)
        return Phrase(f"제 생일은 {day.korean}입니다.", f"My birthday is {day.english}.")
    clock = _draw_clock(rng, held_back=held_back)
    if form == "at":
        return Phrase(f"{clock.korean}에 만나요.", f"Let's meet at {clock.english}.")
    transport = pick(rng, TRANSPORT)
    subject = with_particle(transport.korean, after_consonant="은", after_vowel="는")
    verb = "떠나요" if form == "leaves" else "도착해요"
    return Phrase(f"{subject} {clock.korean}에 {verb}.", f"The {transport.english} {form} at {clock.english}.")


def _say_event(rng: Random, *, held_back: bool) -> Phrase:
    event, day = pick(rng, EVENTS), _draw_day(rng, held_back=held_back)
    date = _on_weekday(rng, day) if rng.random() < 0.5 else day
    clock = _draw_clock(rng, held_back=held_back)
    subject = with_particle(event.korean, after_consonant="은", after_vowel="는")
    return Phrase(
        f"{subject} {date.korean} {clock.korean}입니다.",
        f"The {event.english} is on {date.english} at {clock.english}.",
    )


def _say_number(rng: Random, *, held_back: bool) -> Phrase:
    form = pick(rng, ("age", "floor", "bus", "times"))
    if form == "age":
        relative, age = pick(rng, RELATIVES), _draw_age(rng, held_back=held_back)
        subject = with_particle(relative.korean, after_consonant="은", after_vowel="는")
        return Phrase(f"제 {subject} {age.korean}이에요.", f"My {relative.english} is {age.english}.")
    if form == "floor":
        floor = _draw_floor(rng, held_back=held_back)
        return Phrase(f"{floor.korean}에서 내리세요.", f"Get off on {floor.english}.")
    if form == "bus":
        bus = _draw_bus(rng, held_back=held_back)
        return Phrase(f"{bus.korean}를 타세요.", f"Take {bus.english}.")
    times = _draw_times(rng, held_back=held_back)
    return Phrase(f"{times.korean} 읽었어요.", f"I read it {times.english}.")


def _say_stay(rng: Random, *, held_back: bool) -> Phrase:
    """One to ten days have native names: 사흘 동안 서울에 있었어요."""
    while True:
        city, unit = pick(rng, CITIES), pick(rng, ("hour", "day", "month"))
        number = pick(rng, range(1, 11 if unit == "day" else 25))
        if is_held_back(unit, number, city.english) == held_back:
            break
    length = {
        "hour": f"{native_before_counter(number)} 시간",
        "day": NATIVE_DAYS[min(number, 10) - 1],
        "month": f"{sino(number)} 개월",
    }[unit]
    return Phrase(
        f"{length} 동안 {city.korean}에 있었어요.", f"I was in {city.english} for {_several(number, unit, unit + 's')}."
    )
