"""Examples: the text that the tokenizer reads, beside the text as it stands in the data."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dstrain.config.data import Rules, Source
from dstrain.config.recipe import Task
from dstrain.data.bad_rows import BadRow, UnusableRowError
from dstrain.data.examples import Example, build_examples, prepare_source
from dstrain.data.sources import Row, read_rows
from dstrain.errors import UserError
from dstrain.tasks.parsing import from_pointer
from tests.unit.tasks.own_module import TASK, write_module

PARSING = Task(kind="parsing", source_prefix="parse: ")
PLAIN = PARSING.model_copy(update={"form": "plain"})
TRANSLATION = Task(kind="translation", source_prefix="translate: ")
PUBLISHED = PARSING.model_copy(update={"segmentation": "published"})

PARSES = [
    ("wake me at 7pm, Tom's here", "[IN:CREATE_ALARM [SL:DATE_TIME at 7 pm ] ]"),
    ("Has Ann messaged me?", "[IN:GET_MESSAGE [SL:CONTACT Ann ] [SL:RECIPIENT me ] ]"),
    ("play 80's rock", "[IN:PLAY_MUSIC [SL:MUSIC_GENRE 80's rock ] ]"),
    ("weather", "[IN:GET_WEATHER ]"),
]


def _row(source: str, target: str, *, where: str = "a.tsv:1", repeat: int = 1) -> Row:
    return Row(source, target, None, None, "group", where, repeat)


def _build(*rows: Row, task: Task = PARSING, **rules: Any) -> tuple[list[Example], list[BadRow]]:
    bad: list[BadRow] = []
    return list(build_examples(rows, task=task, rules=Rules(**rules), on_bad=bad.append)), bad


def test_the_pointer_form_stands_beside_the_words() -> None:
    row = _row("call Nicholas now", "[IN:CREATE_CALL [SL:CONTACT Nicholas ] ]", repeat=2)
    assert _build(row)[0] == [
        Example(
            source="parse: call Nicholas now",
            target="[IN:CREATE_CALL [SL:CONTACT <pt-1> ] ]",
            raw_source=row.source,
            raw_target=row.target,
            source_language=None,
            target_language=None,
            group="group",
            where="a.tsv:1",
            repeat=2,
            source_prefix="parse: ",
        )
    ]


def test_the_plain_form_and_translation_keep_the_words() -> None:
    row = _row("call Nicholas", "[IN:CREATE_CALL [SL:CONTACT Nicholas ] ]")
    plain, _ = _build(row, task=Task(kind="parsing", form="plain"))
    translated, _ = _build(row, task=Task(kind="translation", source_prefix="translate: "))
    assert (plain[0].source, plain[0].target) == (row.source, row.target)
    assert (translated[0].source, translated[0].target) == ("translate: call Nicholas", row.target)


def test_a_row_may_have_a_prefix_of_its_own() -> None:
    rows = [replace(_row("yes", "oui"), source_prefix=prefix) for prefix in (None, ">>fra<< ", "")]
    examples, _ = _build(*rows, task=Task(kind="translation", source_prefix="translate: "))
    assert [example.source for example in examples] == ["translate: yes", ">>fra<< yes", "yes"]
    assert all(example.source == example.source_prefix + "yes" for example in examples)


@pytest.mark.parametrize("task", [TRANSLATION, PLAIN, PARSING], ids=["translation", "plain", "words"])
def test_what_a_model_reads_does_not_depend_on_the_reference(task: Task) -> None:
    rows = [_row(source, target) for source, target in PARSES]
    others = [_row(row.source, other.target) for row, other in zip(rows, reversed(rows), strict=True)]
    examples, bad = _build(*rows, *others, task=task)
    assert bad == []
    assert [example.source for example in examples[: len(rows)]] == [
        example.source for example in examples[len(rows) :]
    ]


def test_the_published_segmentation_depends_on_the_reference() -> None:
    utterance, parses = "wake me at 7pm", ["[IN:A [SL:B 7 pm ] ]", "[IN:A [SL:B me ] ]"]
    examples, _ = _build(*(_row(utterance, parse) for parse in parses), task=PUBLISHED)
    assert [example.source for example in examples] == ["parse: wake me at 7 pm", "parse: wake me at 7pm"]


def test_further_references_are_kept_as_they_are_but_for_the_pointer_form() -> None:
    row = replace(_row("call me", "[IN:CREATE_CALL ]"), other_targets=("[IN:GET_CALL ]",))
    (example,), _ = _build(row, task=Task(kind="parsing", form="plain"))
    assert example.other_targets == row.other_targets
    with pytest.raises(UserError, match=r"a\.tsv:1: 2 references, but with task\.form `pointer` a row has one"):
        _build(row)


@pytest.mark.parametrize(
    ("target", "reason"),
    [("[IN:CREATE_CALL [SL:CONTACT Natasha ] ]", "unpointable"), ("[IN:CREATE_CALL [SL:CONTACT call ]", "undecodable")],
)
def test_a_parse_that_cannot_be_pointed_follows_its_rule(target: str, reason: str) -> None:
    good, bad_row = _row("call me", "[IN:CREATE_CALL ]"), _row("call me", target, where="a.tsv:7")
    with pytest.raises(UnusableRowError, match=rf"a\.tsv:7: .*data\.rules\.{reason}=skip"):
        _build(good, bad_row, task=PUBLISHED)
    examples, bad = _build(good, bad_row, good, task=PUBLISHED, **{reason: "skip"})
    assert len(examples) == 2
    assert bad == [BadRow("a.tsv:7", reason, f"call me\t{target}", "skip")]  # type: ignore[arg-type]


@pytest.mark.real_data
@pytest.mark.parametrize("task", [PARSING, PUBLISHED], ids=["words", "published"])
@pytest.mark.parametrize("name", ["mtop/train.tsv", "mtop/eval.tsv"])
def test_every_real_parse_is_pointed_and_comes_back(real_data: Path, name: str, task: Task) -> None:
    bad: list[BadRow] = []
    rows = read_rows([Source(path=str(real_data / name))], task=task, rules=Rules(), on_bad=bad.append)
    examples = list(build_examples(rows, task=task, rules=Rules(), on_bad=bad.append))
    assert bad == []
    for example in examples:
        source = example.source.removeprefix(task.source_prefix)
        assert from_pointer(example.target, source=source) == example.raw_target


@pytest.mark.real_data
def test_the_first_real_rows_equal_those_of_the_published_model(real_data: Path) -> None:
    expected = (real_data / "mtop/eval.pointer.first400.tsv").read_text(encoding="utf-8").split("\n")[:-1]
    source = Source(path=str(real_data / "mtop/eval.tsv"), max_rows=len(expected))
    rows = read_rows([source], task=PUBLISHED, rules=Rules(), on_bad=print)
    examples = build_examples(rows, task=PUBLISHED, rules=Rules(), on_bad=print)
    assert [f"{example.source}\t{example.target}" for example in examples] == expected


UTTERANCE = "set Tom's  alarm for 5pm."


def test_a_text_without_a_parse_is_read_as_the_same_text_with_one() -> None:
    row = Row(UTTERANCE, "[IN:CREATE_ALARM [SL:TIME 5pm ] ]", None, None, None, "a.tsv:1")
    (example,) = build_examples([row], task=PARSING, rules=Rules(), on_bad=print)
    assert prepare_source(UTTERANCE, task=PARSING, prefix=PARSING.source_prefix, where="x:1") == example.source
    assert "Tom 's alarm for 5 pm ." in example.source


def test_only_the_pointer_form_changes_a_text_and_one_cut_by_references_stays_as_typed() -> None:
    assert prepare_source(UTTERANCE, task=PUBLISHED, prefix="parse: ", where="x:1") == "parse: set Tom's alarm for 5pm."
    for task in (Task(kind="translation"), Task(kind="parsing", form="plain")):
        assert prepare_source(UTTERANCE, task=task, prefix=">>fra<< ", where="x:1") == f">>fra<< {UTTERANCE}"


def test_a_class_of_the_users_own_makes_both_sides_and_refuses_rows_by_the_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task(kind=f"{write_module(tmp_path, TASK, monkeypatch=monkeypatch)}:Shout", source_prefix="shout: ")
    rows = [_row("Good Day", "guten tag"), _row("Nice", "schön", where="a.tsv:2")]
    (example,), (bad,) = _build(*rows, task=task, undecodable="skip")
    assert (example.source, example.target) == ("shout: good day", "GUTEN TAG <- Good Day")
    assert (example.raw_source, example.raw_target) == ("Good Day", "guten tag")
    assert (bad.where, bad.reason) == ("a.tsv:2", "undecodable")
    assert prepare_source("Good Day", task=task, prefix="shout: ", where="x:1") == example.source
    with pytest.raises(UnusableRowError, match=r"a\.tsv:2: task\.kind .* refuses it .not ASCII.*found 'Nice"):
        _build(*rows, task=task, undecodable="error")
