"""Korean words of the translation demo, each with its English translation. Knows no grammar.

Counters are those of everyday use that take the plain forms 한, 두, 세, 네 (표준어 사정 원칙 제17항 lists the others).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phrase:
    """Korean and its English translation."""

    korean: str
    english: str


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that is counted: noun and counter, and the English singular and plural."""

    noun: str
    counter: str
    one: str
    many: str


def _things(table: str) -> tuple[Thing, ...]:
    return tuple(Thing(*(cell.strip() for cell in line.split("|"))) for line in table.strip().splitlines())


SERVED = _things("""
    커피 | 잔 | cup of coffee | cups of coffee
    차 | 잔 | cup of tea | cups of tea
    우유 | 잔 | glass of milk | glasses of milk
    주스 | 잔 | glass of juice | glasses of juice
    물 | 병 | bottle of water | bottles of water
    맥주 | 병 | bottle of beer | bottles of beer
    와인 | 병 | bottle of wine | bottles of wine
    밥 | 그릇 | bowl of rice | bowls of rice
    국수 | 그릇 | bowl of noodles | bowls of noodles
    피자 | 조각 | slice of pizza | slices of pizza
    케이크 | 조각 | piece of cake | pieces of cake
    사과 | 개 | apple | apples
    오렌지 | 개 | orange | oranges
    달걀 | 개 | egg | eggs
""")
"""Food and drink."""

GOODS = _things("""
    의자 | 개 | chair | chairs
    가방 | 개 | bag | bags
    상자 | 개 | box | boxes
    책 | 권 | book | books
    공책 | 권 | notebook | notebooks
    사전 | 권 | dictionary | dictionaries
    잡지 | 권 | magazine | magazines
    종이 | 장 | sheet of paper | sheets of paper
    사진 | 장 | photo | photos
    엽서 | 장 | postcard | postcards
    자동차 | 대 | car | cars
    자전거 | 대 | bicycle | bicycles
    컴퓨터 | 대 | computer | computers
    연필 | 자루 | pencil | pencils
    장미 | 송이 | rose | roses
    신발 | 켤레 | pair of shoes | pairs of shoes
    양말 | 켤레 | pair of socks | pairs of socks
    장갑 | 켤레 | pair of gloves | pairs of gloves
    양복 | 벌 | suit | suits
""")
"""What is bought in a shop."""

BEINGS = _things("""
    학생 | 명 | student | students
    의사 | 명 | doctor | doctors
    아이 | 명 | child | children
    친구 | 명 | friend | friends
    가수 | 명 | singer | singers
    고양이 | 마리 | cat | cats
    개 | 마리 | dog | dogs
    새 | 마리 | bird | birds
    말 | 마리 | horse | horses
    닭 | 마리 | chicken | chickens
    토끼 | 마리 | rabbit | rabbits
    나무 | 그루 | tree | trees
    집 | 채 | house | houses
""")
"""People, animals, and what else one sees outdoors."""

SINO_MEASURES = _things("""
     | 킬로미터 | kilometer | kilometers
     | 킬로그램 | kilogram | kilograms
     | 퍼센트 | percent | percent
     | 개월 | month | months
    불고기 | 인분 | serving of bulgogi | servings of bulgogi
    비빔밥 | 인분 | serving of bibimbap | servings of bibimbap
""")
"""Counters that take the Sino-Korean series: units of measure, loan words, months, servings."""

RANKED = (
    Phrase("질문", "question"), Phrase("문제", "problem"), Phrase("사람", "person"), Phrase("손님", "guest"),
    Phrase("줄", "line"), Phrase("문", "door"), Phrase("역", "station"), Phrase("이름", "name"), Phrase("날", "day"),
    Phrase("노래", "song"),
)  # fmt: skip
"""What the ordinal phrases rank."""

WEEKDAYS = (
    Phrase("월요일", "Monday"), Phrase("화요일", "Tuesday"), Phrase("수요일", "Wednesday"), Phrase("목요일", "Thursday"),
    Phrase("금요일", "Friday"), Phrase("토요일", "Saturday"), Phrase("일요일", "Sunday"),
)  # fmt: skip
MONTHS = (
    ("일월", "January", 31), ("이월", "February", 28), ("삼월", "March", 31), ("사월", "April", 30), ("오월", "May", 31),
    ("유월", "June", 30), ("칠월", "July", 31), ("팔월", "August", 31), ("구월", "September", 30), ("시월", "October", 31),
    ("십일월", "November", 30), ("십이월", "December", 31),
)  # fmt: skip
PARTS_OF_DAY = (
    ("새벽", range(1, 6), "in the early morning"), ("아침", range(6, 11), "in the morning"),
    ("오전", range(6, 12), "in the morning"), ("오후", range(1, 6), "in the afternoon"),
    ("저녁", range(6, 10), "in the evening"), ("밤", range(9, 12), "at night"),
)  # fmt: skip
EVENTS = (
    Phrase("회의", "meeting"), Phrase("수업", "class"), Phrase("시험", "exam"), Phrase("파티", "party"),
    Phrase("공연", "show"), Phrase("약속", "appointment"),
)  # fmt: skip
TRANSPORT = (
    Phrase("기차", "train"), Phrase("버스", "bus"), Phrase("비행기", "plane"), Phrase("배", "boat"), Phrase("지하철", "subway"),
)  # fmt: skip
RELATIVES = (
    Phrase("동생", "younger sibling"), Phrase("아들", "son"), Phrase("딸", "daughter"), Phrase("사촌", "cousin"),
    Phrase("친구", "friend"),
)  # fmt: skip
CITIES = (
    Phrase("서울", "Seoul"), Phrase("부산", "Busan"), Phrase("대구", "Daegu"), Phrase("인천", "Incheon"),
    Phrase("광주", "Gwangju"), Phrase("제주", "Jeju"),
)  # fmt: skip
NATIVE_DAYS = ("하루", "이틀", "사흘", "나흘", "닷새", "엿새", "이레", "여드레", "아흐레", "열흘")
