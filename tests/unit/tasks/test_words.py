"""The pointer form whose places are known before the parse: on real rows, and on rows made to hurt."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrain.tasks.parsing import MalformedParse, PointerPair, from_pointer, is_bracket, is_valid_parse, task_tokens
from dstrain.tasks.words import cut_words, place_tokens, point_words
from tests.unit.tasks.demo.demo_cases import rows_of
from tests.unit.tasks.test_parsing import read_pairs


@pytest.mark.parametrize(
    ("utterance", "words"),
    [
        ("wake me at 7:30pm.", "wake me at 7 : 30 pm ."),
        ("by the 20th at 8.30am, p.m. or 5 o'clock?", "by the 20th at 8.30 am , p.m . or 5 o'clock ?"),
        ("play Tom's 80s R&B songs, don't stop", "play Tom 's 80s R & B songs , don't stop"),
        ("it’s the boys' hip-hop (live)", "it ’s the boys ' hip - hop ( live )"),
        ("'rock' \"n\" roll", "' rock ' \" n \" roll"),
        ("pay $5 or 50% by 1/2", "pay $ 5 or 50 % by 1 / 2"),
        ("règle l'heure d'aujourd'hui", "règle l' heure d' aujourd'hui"),
        ("मुझे 5बजे जगाओ", "मुझे 5 बजे जगाओ"),
        ("내일 오전 7시에 깨워줘", "내일 오전 7 시에 깨워줘"),
        ("明天下午5点", "明天下午 5 点"),
        ("say <pt-0> 👩‍👩‍👧😀", "say < pt - 0 > 👩‍👩‍👧 😀"),
    ],
)
def test_an_utterance_is_cut_at_punctuation_clitics_and_between_digits_and_letters(utterance: str, words: str) -> None:
    assert cut_words(utterance) == words.split(" ")


def test_words_with_places_become_pointers_whatever_else_the_parse_says() -> None:
    utterance = "Has Ann messaged me at 7pm?"
    pair = point_words(utterance, parse="[IN:GET_MESSAGE [SL:CONTACT Ann ] [SL:RECIPIENT me ] [SL:TIME at 7 pm ] ]")
    assert pair == PointerPair(
        "Has Ann messaged me at 7 pm ?",
        "[IN:GET_MESSAGE [SL:CONTACT <pt-1> ] [SL:RECIPIENT <pt-3> ] [SL:TIME <pt-4> <pt-5> <pt-6> ] ]",
    )
    assert point_words(utterance, parse="[IN:GET_MESSAGE ]").source == pair.source


@pytest.mark.parametrize(
    ("utterance", "slot", "pointers"),
    [
        ("at 7pm", "at 7pm", "<pt-0> <pt-1> <pt-join> <pt-2>"),
        ("call mom's boss", "mom's boss", "<pt-1> <pt-join> <pt-2> <pt-3>"),
        ("at 7 pm", "7pm", "<pt-1> <pt-join> <pt-2>"),
        ("read my messages", "message", "message"),
        ("call mom", "Dad or mom", "Dad or <pt-1>"),
        ("call mom", "<pt-0> mom", "< <pt-join> pt-0> <pt-1>"),
        ("say <pt-1>", "<pt-1>", "<pt-1> <pt-join> <pt-2> <pt-join> <pt-3> <pt-join> <pt-4> <pt-join> <pt-5>"),
    ],
)
def test_a_word_without_a_place_of_its_own_is_joined_or_spelt_out(utterance: str, slot: str, pointers: str) -> None:
    pair = point_words(utterance, parse=f"[IN:A [SL:B {slot} ] ]")
    assert pair.target == f"[IN:A [SL:B {pointers} ] ]"
    assert from_pointer(pair.target, source=pair.source) == f"[IN:A [SL:B {slot} ] ]"
    decoded = pair.target.replace("[SL:B <", "[SL:B<").replace("> <", "><").replace("< <", "<<")
    assert from_pointer(decoded, source=pair.source) == f"[IN:A [SL:B {slot} ] ]"


def test_the_words_of_a_slot_point_to_neighbouring_places() -> None:
    utterance = "is the movie the nutcracker on the list"
    assert point_words(utterance, parse="[IN:A [SL:B the nutcracker ] ]").target == "[IN:A [SL:B <pt-3> <pt-4> ] ]"
    assert point_words(utterance, parse="[IN:A [SL:B the list ] [SL:C the movie ] ]").target == (
        "[IN:A [SL:B <pt-6> <pt-7> ] [SL:C <pt-1> <pt-2> ] ]"
    )


def test_a_repeated_word_points_behind_the_last_place_and_then_to_one_that_is_left() -> None:
    parse = "[IN:A [SL:B Tom ] [SL:C me ] [SL:D me ] [SL:E me ] ]"
    assert point_words("tell me Tom told me", parse=parse).target == (
        "[IN:A [SL:B <pt-2> ] [SL:C <pt-4> ] [SL:D <pt-1> ] [SL:E <pt-4> ] ]"
    )


def test_every_place_and_the_join_have_a_token() -> None:
    assert place_tokens(3) == ["<pt-0>", "<pt-1>", "<pt-2>", "<pt-join>"] == task_tokens(place_tokens(3))


def test_a_parse_that_is_not_well_formed_is_refused_with_the_fault() -> None:
    with pytest.raises(MalformedParse, match="not a parse: 1 bracket is not closed"):
        point_words("call mom", parse="[IN:A [SL:B mom ]")


def test_rows_of_the_demo_come_back_without_a_spelt_word() -> None:
    for row in rows_of("parsing", "eval"):
        pair = point_words(row.source, parse=row.target)
        assert from_pointer(pair.target, source=pair.source) == row.target
        assert all(is_bracket(token) or token.startswith("<pt-") for token in pair.target.split())


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["mtop/train", "mtop/eval", "top/train", "top/eval", "top/test"])
def test_every_real_row_is_expressible(real_data: Path, name: str) -> None:
    path = real_data / f"{name}.tsv"
    if not path.is_file():
        pytest.skip(f"no {path}")
    for utterance, parse in read_pairs(path):
        pair = point_words(utterance, parse=parse)
        assert from_pointer(pair.target, source=pair.source) == " ".join(parse.split())
        assert is_valid_parse(pair.target)


@pytest.mark.real_data
def test_nearly_every_word_of_mtop_has_a_place_of_its_own(real_data: Path) -> None:
    pairs = [point_words(utterance, parse=parse) for utterance, parse in read_pairs(real_data / "mtop/eval.tsv")]
    tokens = [[token for token in pair.target.split() if not is_bracket(token)] for pair in pairs]
    assert sum(row.count("<pt-join>") for row in tokens) == 12  # of 7,304 words
    assert all(token.startswith("<pt-") for row in tokens for token in row)  # none is spelt out
    assert sum("<pt-join>" not in row for row in tokens) == 2_224
    assert len(task_tokens(pair.target for pair in pairs)) == 183


TEXT = st.text(
    st.one_of(
        st.sampled_from("aAb'’.:,-<>pt0157 []\u0301\u200d\u2028é물ो😀½"), st.characters(exclude_categories=["Cs"])
    ),
    min_size=1,
    max_size=12,
)


def without_brackets(text: str) -> str:
    return text.replace("[", "(").replace("]", ")")


@given(st.lists(TEXT, max_size=5), st.lists(st.one_of(TEXT, st.just(""), st.just("<pt-join>")), max_size=6), st.data())
def test_every_row_comes_back_and_its_source_needs_no_parse(
    words: list[str], others: list[str], data: st.DataObject
) -> None:
    utterance = " ".join(words)
    kept = data.draw(st.lists(st.sampled_from(words or [""]), max_size=4))
    slots = [f"[SL:S {without_brackets(text)} ]" for text in data.draw(st.permutations([*others, *kept]))]
    parse = " ".join(["[IN:R", *slots, "]"])
    pair = point_words(utterance, parse=parse)
    assert from_pointer(pair.target, source=pair.source) == " ".join(parse.split())
    assert pair.source == " ".join(cut_words(utterance)) == " ".join(pair.source.split())
    assert "".join(cut_words(utterance)) == "".join(utterance.split())
