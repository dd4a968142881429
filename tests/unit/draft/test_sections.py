"""Model, task, training and evaluation of a first recipe, by rows, machine and what the user names."""

from typing import Any

from dstrain.draft.families import named_family
from dstrain.draft.guess_task import Guess
from dstrain.draft.look import Rows
from dstrain.draft.machine import Machine
from dstrain.draft.recipe_text import Line, all_lines
from dstrain.draft.sections import Request, Sections

CPU, GPU = Machine(0, 2, 8_000_000_000), Machine(4, 16, None)
KO_EN = Guess("translation", "two languages", "ko", "en", ("Hangul", "words"))
PARSING = Guess("parsing", "parses")
TEXT = Guess("text", "one language", name="correction")


def rows_of(number: int = 5000, *, source: str = "a" * 40, target: str = "b" * 40) -> Rows:
    sample = ((source, target),) * 100
    return Rows(number, sample, (len(source), len(target)), 80 * number, 50)


def sections_of(
    guess: Guess, *, rows: Rows | None = None, machine: Machine = CPU, is_split: bool = False, **named: Any
) -> Sections:
    request = Request(files=("x.tsv",), **named)
    family = named_family(request.model or "")
    return Sections(request, guess, rows or rows_of(), machine, is_split=is_split, family=family)


def by_key(lines: list[Line]) -> dict[str, Any]:
    return {key: line.value for key, line in all_lines(lines)}


def test_a_model_from_scratch_is_the_default() -> None:
    model = by_key(sections_of(KO_EN).model())
    assert model["scratch.architecture"] == "m2m100"
    assert (model["scratch.hidden_size"], model["scratch.feed_forward_size"]) == (128, 512)
    assert by_key(sections_of(KO_EN, size="base").model())["scratch.hidden_size"] == 256
    assert by_key(sections_of(KO_EN, machine=GPU, rows=rows_of(10**6)).model())["scratch.hidden_size"] == 512


def test_a_language_that_m2m100_lacks_takes_a_family_without_codes() -> None:
    guess = Guess("translation", "two languages", "eo", "en", ("named", "words"))
    sections = sections_of(guess, rows=rows_of(source="가" * 900))
    model = by_key(sections.model())
    assert (model["scratch.architecture"], model["scratch.max_positions"]) == ("marian", 1024)
    task = by_key(sections.task())
    assert (task["source_language"], task["target_language"]) == ("eo", "en")


def test_codes_and_prefix_are_those_of_the_named_model() -> None:
    task = by_key(sections_of(KO_EN, model="facebook/nllb-200-distilled-600M").task())
    assert (task["source_language"], task["target_language"]) == ("kor_Hang", "eng_Latn")
    task = by_key(sections_of(KO_EN, model="google/mt5-small").task())
    assert task["source_prefix"] == "translate ko to en: "
    assert by_key(sections_of(PARSING, model="t5-small").task())["source_prefix"] == "parse: "
    assert by_key(sections_of(TEXT, model="t5-small").task())["source_prefix"] == "correction: "
    assert "source_prefix" not in by_key(sections_of(TEXT).task())
    task_lines = sections_of(Guess("translation", "x", "eo", "en"), model="a/nllb-x").task()
    asked = [line for line in task_lines if line.origin == "question"]
    assert [(line.key, line.why) for line in asked] == [("source_language", "which code of NLLB is `eo`?")]


def test_codes_that_are_spelt_by_the_user_are_left_as_they_are() -> None:
    guess = Guess("translation", "named", "kor_Hang", "eng_Latn")
    task = by_key(sections_of(guess, model="facebook/nllb-200-1.3B").task())
    assert (task["source_language"], task["target_language"]) == ("kor_Hang", "eng_Latn")


def test_limits_of_length_are_cautious_by_script() -> None:
    task = by_key(sections_of(KO_EN, rows=rows_of(source="가" * 60, target="b" * 60)).task())
    assert (task["max_source_tokens"], task["max_target_tokens"]) == (64, 48)
    task = by_key(sections_of(TEXT, model="google/byt5-small", rows=rows_of(target="b" * 60)).task())
    assert task["max_target_tokens"] == 64
    parse = "[IN:X [SL:Y a b ] [SL:Z c ] ]"
    assert by_key(sections_of(PARSING, rows=rows_of(target=parse)).task())["max_target_tokens"] == 32


def test_parses_keep_their_pointers() -> None:
    assert by_key(sections_of(PARSING).task())["form"] == "pointer"
    assert by_key(sections_of(Guess("parsing", "x", has_pointers=True)).task())["form"] == "plain"


def test_precision_and_micro_batches_follow_the_machine() -> None:
    assert (sections_of(TEXT).precision().value, sections_of(TEXT, machine=GPU).precision().value) == ("fp32", "bf16")
    assert by_key(sections_of(TEXT, machine=GPU).machine_lines())["min_micro_batches"] == 8


def test_fine_tuning_is_shorter_and_slower_than_training_from_scratch() -> None:
    scratch, tuned = sections_of(TEXT), sections_of(TEXT, model="google/mt5-small")
    assert by_key(tuned.training())["max_steps"] < by_key(scratch.training())["max_steps"]
    assert by_key(tuned.training())["learning_rate"] == 3e-4
    assert by_key(sections_of(KO_EN, model="facebook/m2m100_418M").training())["learning_rate"] == 1e-4


def test_rows_that_are_set_apart_are_not_counted_for_training() -> None:
    assert (sections_of(TEXT).num_rows, sections_of(TEXT, is_split=True).num_rows) == (5000, 4750)
    assert sections_of(TEXT, rows=rows_of(1), is_split=True).num_rows == 1


def test_a_model_that_is_too_large_for_the_machine_is_named() -> None:
    notes = sections_of(KO_EN, model="facebook/nllb-200-1.3B").notes()
    assert notes[0] == "about 1,300M parameters by the model's name: 21 GB with Adam"
    assert "more than the memory of this machine" in notes[1]
    assert len(sections_of(KO_EN, model="t5-small").notes()) == 1
    assert sections_of(KO_EN).notes() == []


def test_few_rows_and_targets_that_are_their_sources_are_said() -> None:
    assert sections_of(TEXT).notes() == []
    few, same = sections_of(TEXT, rows=rows_of(2, source="one", target=" one")).notes()
    assert few.startswith("only 2 training rows:")
    assert same == "the target equals the source in every row: is it the column that you mean?"


def test_a_limit_is_no_longer_than_the_positions_of_the_named_model() -> None:
    task = by_key(sections_of(TEXT, rows=rows_of(source="a" * 9000), model="Helsinki-NLP/opus-mt-en-ko").task())
    assert task["max_source_tokens"] == 512
