"""Which columns hold source and target: by names, by language codes, by what is in them."""

import pytest

from dstrain.data.peek import Peek
from dstrain.data.records import Column
from dstrain.draft.columns import choose_columns
from dstrain.errors import UserError

LONG = "this is a sentence of several words"


def table(*rows: tuple[str, ...]) -> Peek:
    return Peek(tuple(range(len(rows[0]))), rows)


@pytest.mark.parametrize(
    ("peek", "source", "target"),
    [
        (table(("가다", "to go"), ("오다", "to come")), 0, 1),
        (table(("source", "target"), ("a", "b"), ("c", "d")), "source", "target"),
        (table(("en", "ko"), ("a", "가"), ("c", "나")), "en", "ko"),
        (table(("id", "wrong text", "right"), ("1", LONG, LONG), ("2", LONG, LONG)), "wrong text", "right"),
        (table(("hello", "bonjour"), ("cat", "chat"), ("dog", "chien")), 0, 1),
        (table(("열 둘 다섯", "ten two five"), *[(LONG, LONG)] * 9), 0, 1),
        (table(("안녕하세요 세계", "hello world"), *[(LONG, LONG)] * 9), 0, 1),
        (table(("no", "nein"), *[(LONG, LONG)] * 9), 0, 1),
        (table(("run", "lauf"), *[(LONG, LONG)] * 9), 0, 1),
        (table(("Korean", "English"), *[(LONG, LONG)] * 9), "Korean", "English"),
        (table(("source text", "target text"), *[(LONG, LONG)] * 9), "source text", "target text"),
        (table(("src_sentence", "mt"), *[(LONG, LONG)] * 9), "src_sentence", "mt"),
        (table(("swh_Latn", "zul_Latn"), *[(LONG, LONG)] * 9), "swh_Latn", "zul_Latn"),
        (table(("en_XX", "pt_XX"), *[(LONG, LONG)] * 9), "en_XX", "pt_XX"),
        (table(("1", "0.5", LONG, LONG), ("2", "0.6", LONG, LONG)), 2, 3),
        (table(("a", "a"), (LONG, LONG)), 0, 1),
        (Peek(("id", "translation.ko", "translation.en"), ((1, "가", "a"),)), "translation.ko", "translation.en"),
        (Peek(("summary", "document", "id"), (("a", LONG, "x1"),)), "document", "summary"),
        (Peek(("utterance", "semantic_parse"), (("a", "[IN:X b ]"),)), "utterance", "semantic_parse"),
        (Peek(("answer", "context"), (("a", "b"),)), "context", "answer"),
        (Peek(("question", "answers"), (("a", ["b", "c"]),)), "question", "answers"),
        (Peek(("a", "b", "c"), ((None, "x", "y"), ("", "x", "y"))), "b", "c"),
    ],
)
def test_the_columns_of_the_texts_are_found(peek: Peek, source: Column, target: Column) -> None:
    found = choose_columns(peek, place="x")
    assert (found.source, found.target) == (source, target)
    assert found.why


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (("source", "target"), "the first row (`source`, `target`) is its header, and no row"),
        (
            ("frage", "antwort"),
            "the first row (`frage`, `antwort`) counts as a row; if it is a header, name --source-column",
        ),
        (("hello world", "bonjour le monde"), ""),
    ],
)
def test_a_first_row_that_may_be_a_header_is_spoken_of(first: tuple[str, str], said: str) -> None:
    found = choose_columns(table(first, *[(LONG, LONG)] * 9), place="x").first_row
    assert found.startswith(said)
    assert bool(found) == bool(said)


def test_languages_that_are_named_choose_the_direction() -> None:
    peek = Peek(("translation.en", "translation.ko"), (("a", "가"),))
    assert choose_columns(peek, place="x", pair=("ko", "en")).source == "translation.ko"
    assert (
        choose_columns(Peek(("en_XX", "ko_KR"), (("a", "가"),)), place="x", pair=("ko_KR", "en_XX")).source == "ko_KR"
    )


@pytest.mark.parametrize(
    ("peek", "names"),
    [
        (table(("only one column",), ("really",)), "`0`"),
        (table(("1", "text"), ("2", "words here")), "`1`"),
        (table(("1", "2"), ("3", "4")), "none"),
    ],
)
def test_rows_without_two_texts_are_refused_with_the_way_out(peek: Peek, names: str) -> None:
    with pytest.raises(UserError, match=f"hold text: {names}; name both with --source-column and --target-column"):
        choose_columns(peek, place="x")


@pytest.mark.parametrize(
    ("names", "languages"),
    [
        (("text", "translation", "from", "to"), ("from", "to")),
        (("tgt_lang", "text", "src_lang", "translation"), ("src_lang", "tgt_lang")),
        (("text", "translation", "l1", "l2"), ("l1", "l2")),
    ],
)
def test_columns_of_language_codes_are_found(names: tuple[str, ...], languages: tuple[str, str]) -> None:
    codes = {languages[0]: ("ko", "en"), languages[1]: ("en", "ko")}
    rows = tuple(tuple(codes[name][n % 2] if name in codes else f"{LONG} {n}" for name in names) for n in range(8))
    found = choose_columns(Peek(names, rows), place="x")
    assert (found.source, found.target) == ("text", "translation")
    assert (found.source_language, found.target_language) == languages
    assert found.unused == ()


def test_columns_of_other_words_are_no_languages_and_unused_columns_are_named() -> None:
    names = ("text", "translation", "kind", "domain")
    rows = tuple((f"{LONG} {n}", LONG, "news", "yes") for n in range(8))
    found = choose_columns(Peek(names, rows), place="x")
    assert (found.source_language, found.target_language) == (None, None)
    assert found.unused == ("kind", "domain")
    two = choose_columns(Peek(("a", "b"), (("en", "ko"), ("no", "is"))), place="x")  # all that the rows have
    assert (two.source, two.target, two.source_language) == ("a", "b", None)
