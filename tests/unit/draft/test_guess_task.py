"""The task of a sample of rows: parses, translations, corrections, summaries, and what the user says."""

import pytest

from dstrain.draft.guess_task import Language, Pairs, guess_task
from dstrain.tasks.demo.rows import demo_rows

PARSES = (("call my brother", "[IN:CREATE_CALL [SL:CONTACT my brother ] ]"),) * 10
DEUTSCH = (("This is the book that I have", "Das ist das Buch, das ich nicht habe"),) * 5
SUMMARY = (("The quick brown fox jumps over the lazy dog. " * 10, "A fox jumps over a dog."),) * 3
QUESTIONS = (("Who wrote the book?", "Jane Austen"),) * 3
NOBODY = (None, None)


def sample_of(demo: str) -> Pairs:
    return [(row.source, row.target) for row in list(demo_rows(demo, split="train"))[::50]]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sample", "kind", "name", "languages"),
    [
        (PARSES, "parsing", None, (None, None)),
        (DEUTSCH, "translation", None, ("en", "de")),
        (SUMMARY, "text", "summarisation", (None, None)),
        (QUESTIONS, "text", None, (None, None)),
        (sample_of("translation"), "translation", None, ("ko", "en")),
        (sample_of("parsing"), "parsing", None, (None, None)),
        (sample_of("text"), "text", "correction", (None, None)),
    ],
    ids=["parses", "deutsch", "summaries", "questions", "demo-translation", "demo-parsing", "demo-text"],
)
def test_a_task_is_seen_in_its_rows(
    sample: Pairs, kind: str, name: str | None, languages: tuple[str | None, str | None]
) -> None:
    guess = guess_task(sample, kind=None, languages=NOBODY)
    assert (guess.kind, guess.name) == (kind, name)
    assert (guess.source_language, guess.target_language) == languages
    assert guess.why


def test_what_is_known_holds() -> None:
    finnish: Language = ("fi", "as it was named")
    assert guess_task(PARSES, kind="text", languages=NOBODY).kind == "text"
    assert guess_task(QUESTIONS, kind="parsing", languages=NOBODY).kind == "parsing"
    guess = guess_task(DEUTSCH, kind=None, languages=(None, finnish))
    assert (guess.source_language, guess.target_language) == ("en", "fi")
    guess = guess_task(QUESTIONS, kind=None, languages=(None, finnish))
    assert (guess.kind, guess.language_why[1]) == ("translation", "as it was named")


def test_parses_with_pointers_are_recognised() -> None:
    sample = (("call my brother", "[IN:CREATE_CALL [SL:CONTACT <pt-1> <pt-2> ] ]"),)
    assert guess_task(sample, kind=None, languages=NOBODY).has_pointers
    assert not guess_task(PARSES, kind=None, languages=NOBODY).has_pointers


def test_a_few_broken_parses_do_not_hide_the_others() -> None:
    assert guess_task([*PARSES * 10, ("a", "[IN:X")], kind=None, languages=NOBODY).kind == "parsing"
    assert guess_task([*PARSES, *(("a", "b"),) * 5], kind=None, languages=NOBODY).kind == "text"


def test_a_column_of_targets_may_say_what_the_task_makes() -> None:
    pairs = [("Go. and more", "Go."), ("Hi. and more", "Hi.")] * 10
    guess = guess_task(pairs, kind=None, languages=NOBODY, target_column="Summary")
    assert (guess.name, guess.why.endswith("the targets are called `summary`")) == ("summarisation", True)
    assert guess_task(pairs, kind=None, languages=NOBODY, target_column=1).name != "summarisation"
