"""The pointer form against the published rows, and on rows made to hurt."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstrain.tasks.parsing import (
    PointerPair,
    UnpointableWord,
    find_dangling,
    from_pointer,
    is_valid_parse,
    respace,
    respace_plain,
    restore_strings,
    task_tokens,
    to_pointer,
)


def read_pairs(path: Path) -> list[tuple[str, str]]:
    with path.open(encoding="utf-8") as lines:
        return [(source, target) for source, target in (line.rstrip("\n").split("\t") for line in lines)]


@pytest.mark.real_data
def test_first_400_evaluation_rows_equal_the_published_pointer_form(real_data: Path) -> None:
    published = read_pairs(real_data / "mtop/eval.pointer.first400.tsv")
    rows = read_pairs(real_data / "mtop/eval.tsv")[:400]
    made = [to_pointer(utterance, parse=parse) for utterance, parse in rows]
    assert [(f"parse: {pair.source}", pair.target) for pair in made] == published


@pytest.mark.real_data
@pytest.mark.parametrize("split", ["train", "eval"])
def test_undoing_the_pointers_returns_every_parse_of_mtop(real_data: Path, split: str) -> None:
    for utterance, parse in read_pairs(real_data / f"mtop/{split}.tsv"):
        pair = to_pointer(utterance, parse=parse)
        assert from_pointer(pair.target, source=pair.source) == parse
        assert is_valid_parse(pair.target)


@pytest.mark.real_data
def test_mtop_counts_equal_the_published_ones(real_data: Path) -> None:
    rows = read_pairs(real_data / "mtop/train.tsv")
    pairs = [to_pointer(utterance, parse=parse) for utterance, parse in rows]
    tokens = task_tokens(pair.target for pair in pairs)
    assert len(tokens) == 226
    assert sum(token.startswith("[IN:") for token in tokens) == 117
    assert sum(token.startswith("[SL:") for token in tokens) == 77
    assert [token for token in tokens if token.startswith("<")] == [f"<pt-{n}>" for n in range(32)]
    assert (
        sum(pair.source.split() != utterance.split() for pair, (utterance, _) in zip(pairs, rows, strict=True)) == 5_045
    )


def test_words_become_their_places_in_the_utterance() -> None:
    assert to_pointer(
        "call Nicholas and Natasha", parse="[IN:CREATE_CALL [SL:CONTACT Nicholas ] [SL:CONTACT Natasha ] ]"
    ) == (PointerPair("call Nicholas and Natasha", "[IN:CREATE_CALL [SL:CONTACT <pt-1> ] [SL:CONTACT <pt-3> ] ]"))


def test_a_word_inside_a_longer_one_is_cut_free_even_where_it_stands_alone_later() -> None:
    parse = "[IN:GET_MESSAGE [SL:CONTACT Ann ] [SL:RECIPIENT me ] ]"
    pair = to_pointer("Has Ann messaged me?", parse=parse)
    assert pair.source == "Has Ann me ssaged me?"
    assert pair.target == "[IN:GET_MESSAGE [SL:CONTACT <pt-1> ] [SL:RECIPIENT <pt-2> ] ]"


def test_punctuation_and_units_are_cut_off() -> None:
    pair = to_pointer("wake me at 7pm,  please", parse="[IN:CREATE_ALARM [SL:DATE_TIME at 7 pm ] ]")
    assert pair.source == "wake me at 7 pm , please"
    assert pair.target == "[IN:CREATE_ALARM [SL:DATE_TIME <pt-2> <pt-3> <pt-4> ] ]"


def test_a_word_out_of_order_is_found_further_back() -> None:
    pair = to_pointer("milk for Tom", parse="[IN:A [SL:B Tom ] [SL:C milk ] ]")
    assert pair == PointerPair("milk for Tom", "[IN:A [SL:B <pt-2> ] [SL:C <pt-0> ] ]")


def test_a_repeated_word_takes_its_places_from_left_to_right_and_then_the_last_again() -> None:
    pair = to_pointer("go go now", parse="[IN:A [SL:B go ] [SL:B go ] [SL:C now ] ]")
    assert pair.target == "[IN:A [SL:B <pt-0> ] [SL:B <pt-1> ] [SL:C <pt-2> ] ]"
    pair = to_pointer("go on", parse="[IN:A [SL:B go ] [SL:B go ] [SL:C go ] ]")
    assert pair.target == "[IN:A [SL:B <pt-0> ] [SL:B <pt-0> ] [SL:C <pt-0> ] ]"


def test_a_word_that_is_not_in_the_utterance_is_refused_by_name() -> None:
    with pytest.raises(UnpointableWord, match="word `dad` of the parse is not in the utterance `call mom`"):
        to_pointer("call mom", parse="[IN:CREATE_CALL [SL:CONTACT dad ] ]")


def test_a_word_cut_through_by_a_later_one_is_refused_by_name() -> None:
    with pytest.raises(UnpointableWord, match="word `them` of the parse is split in the utterance"):
        to_pointer("see them", parse="[IN:A [SL:B them ] [SL:C the ] ]")


@pytest.mark.parametrize(
    ("parse", "fault"),
    [
        ("", "it starts with ``, not with an intent"),
        ("call mom", "it starts with `call`"),
        ("[SL:CONTACT mom ]", r"it starts with `\[SL:CONTACT`"),
        ("[IN:A [SL:B mom ]", "1 bracket is not closed"),
        ("[IN:A [SL:B mom", "2 brackets are not closed"),
        ("[IN:A [SL:B mom ] ] ]", "the first intent closes at token 5 of 6"),
        ("[IN:A ] [IN:B ]", "the first intent closes at token 2 of 4"),
        ("[IN:A [SL:B mom ]]", r"token 4, `\]\]`, is neither .*put spaces around every bracket"),
        ("[IN:A [ mom ] ]", r"token 2, `\[`, is neither"),
        ("[IN:A [SL: mom ] ]", r"token 2, `\[SL:`, is neither"),
    ],
)
def test_a_parse_that_is_not_well_formed_is_refused_with_the_fault(parse: str, fault: str) -> None:
    with pytest.raises(ValueError, match=f"not a parse: .*{fault}"):
        to_pointer("call mom", parse=parse)


@pytest.mark.parametrize(
    "text",
    [
        "[IN:A ]",
        "[IN:A mom ]",
        "[IN:A [SL:B <pt-1> ] ]",
        "[IN:A[SL:B<pt-1>]]",
        "[IN:A [SL:B [IN:C [SL:D x ] ] ] [SL:E y ] ]",
    ],
)
def test_one_intent_with_all_brackets_closed_is_valid(text: str) -> None:
    assert is_valid_parse(text)


@pytest.mark.parametrize(
    "text", ["", "mom", "[SL:A ]", "[IN:A", "[IN:A ] ]", "[IN:A ] mom", "[IN:A [B ] ]", "] [IN:A ]"]
)
def test_anything_else_is_not_valid(text: str) -> None:
    assert not is_valid_parse(text)


def test_spaces_lost_in_decoding_come_back() -> None:
    assert respace("[IN:CREATE_CALL[SL:CONTACT<pt-1> ] ]") == "[IN:CREATE_CALL [SL:CONTACT <pt-1> ] ]"
    assert respace("[IN:A[SL:B<pt-1><pt-12>]][SL:C") == "[IN:A [SL:B <pt-1> <pt-12> ] ] [SL:C"
    assert respace("[IN:A [SL:B buy milk ] ]") == "[IN:A [SL:B buy milk ] ]"


def test_a_pointer_beyond_the_source_stays_as_it_is() -> None:
    assert from_pointer("[IN:A[SL:B<pt-1><pt-2>]]", source="call mom") == "[IN:A [SL:B mom <pt-2> ] ]"


def test_a_word_that_looks_like_a_pointer_survives() -> None:
    parse = "[IN:A [SL:B <pt-0> ] ]"
    pair = to_pointer("say <pt-0>", parse=parse)
    assert pair.target == "[IN:A [SL:B <pt-1> ] ]"
    assert from_pointer(pair.target, source=pair.source) == parse


def test_task_tokens_are_distinct_labels_by_name_and_then_pointers_by_number() -> None:
    targets = ["[IN:B [SL:Z <pt-10> ] ]", "[IN:A [SL:Z <pt-9> <pt-10> ] ]"]
    assert task_tokens(targets) == ["[IN:A", "[IN:B", "[SL:Z", "<pt-9>", "<pt-10>"]


WORDS = st.lists(
    st.sampled_from(["a", "ab", "aba", "b", "me", "message", "7", "pm", "7pm", "물", "é", "x?"]), min_size=1, max_size=9
)


@st.composite
def rows(draw: st.DrawFn) -> tuple[str, str]:
    """An utterance with uneven spaces, and a nested parse of some of its words in order."""
    words = draw(WORDS)
    kept = draw(st.lists(st.booleans(), min_size=len(words), max_size=len(words)))
    slots = [
        draw(st.sampled_from(["[SL:S {} ]", "[SL:S [IN:I [SL:T {} ] ] ]"])).format(word)
        for word, keep in zip(words, kept, strict=True)
        if keep
    ]
    spaces = draw(st.lists(st.sampled_from([" ", "  ", "\t"]), min_size=len(words), max_size=len(words)))
    utterance = "".join(space + word for space, word in zip(spaces, words, strict=True))
    return utterance, " ".join(["[IN:R", *slots, "]"])


@given(rows())
def test_every_pointable_row_comes_back_and_loses_no_character(row: tuple[str, str]) -> None:
    utterance, parse = row
    try:
        pair = to_pointer(utterance, parse=parse)
    except UnpointableWord:
        return
    assert from_pointer(pair.target, source=pair.source) == parse
    assert pair.source.replace(" ", "") == "".join(utterance.split())
    glued = pair.target.replace(" [", "[").replace(" <", "<").replace("> ", ">")
    assert respace(glued) == pair.target


@given(st.text(alphabet="[]<>INSL:pt-0 ab", max_size=40))
def test_respacing_twice_changes_nothing_and_no_text_breaks_the_readers(text: str) -> None:
    once = respace(text)
    assert respace(once) == once
    assert is_valid_parse(text) == is_valid_parse(once)
    from_pointer(text, source="a b")


@pytest.mark.parametrize(
    ("text", "spaced"),
    [
        ("SELECT  x\n FROM t WHERE n = 'A  B' ", "SELECT x FROM t WHERE n = 'A  B'"),
        ("a='A  B'  and b=\"C\t D\"", "a='A  B' and b=\"C\t D\""),
        ("n = 'it''s  A'  AND m = N'B  C'", "n = 'it''s  A' AND m = N'B  C'"),
        ("n LIKE'A  B'  OR m=''", "n LIKE'A  B' OR m=''"),
        (r'print( "a \"  b" ,  `c  d` )', r'print( "a \"  b" , `c  d` )'),
        ("it's  Tom's  dog", "it's Tom's dog"),
        ("n = 'never  closed", "n = 'never closed"),
        ("[IN:A[SL:B mom 's  ][SL:C Tom 's  ]]", "[IN:A [SL:B mom 's ] [SL:C Tom 's ] ]"),
        ('[IN:A[SL:B "A  B" ] ]', '[IN:A [SL:B "A  B" ] ]'),
    ],
)
def test_white_space_inside_quoted_strings_of_a_plain_form_stays(text: str, spaced: str) -> None:
    assert respace_plain(text) == spaced
    assert respace_plain(spaced) == spaced


def test_the_quoted_strings_of_a_reference_are_those_in_the_data() -> None:
    assert restore_strings("n = 'A B' AND m = ''", parse="n='A  B' AND m=''") == "n = 'A  B' AND m = ''"
    assert restore_strings("n = 'A B'", parse="n = 'A\r\nB'") == r"n = 'A\nB'"
    assert restore_strings("n = A B", parse="n = 'A  B'") == "n = A B"


def test_pointers_beyond_the_words_of_the_source_are_found() -> None:
    parse = "[IN:X [SL:Y <pt-0> <pt-5> <pt-9> ] ]"
    assert find_dangling(parse, source="a b c d e") == ["<pt-5>", "<pt-9>"]
    assert find_dangling(parse, source="a b c d e f g h i j") == []
