"""The built-in demo data: distinct, disjoint, and the same on every machine."""

import hashlib
from collections import Counter

import pytest

from dstrain.tasks.demo.rows import PARSING_ROWS, TEXT_ROWS, TRANSLATION_ROWS, demo_rows
from tests.unit.tasks.demo.demo_cases import TASKS, Task, rows_of

# Pinned so that a change of the generator is noticed: increase GENERATOR_VERSION together with these.
CHECKSUMS = (
    ("translation", "train", "ce7ec1750c9a3554"),
    ("translation", "eval", "240dd5b62d3a75cb"),
    ("parsing", "train", "22aa62525d60033c"),
    ("parsing", "eval", "e1300bb007e4f88c"),
    ("text", "train", "8a78e07bf76ff9b2"),
    ("text", "eval", "9cdcb8ec6538b56e"),
)

PLANNED = {"translation": TRANSLATION_ROWS, "parsing": PARSING_ROWS, "text": TEXT_ROWS}


@pytest.mark.parametrize("task", TASKS)
def test_sources_are_distinct_and_no_evaluation_row_is_a_training_row(task: Task) -> None:
    sources = [row.source for split in ("train", "eval") for row in rows_of(task, split)]
    assert len(set(sources)) == len(sources)


@pytest.mark.parametrize("task", TASKS)
def test_no_seed_trains_on_the_evaluation_rows_of_another(task: Task) -> None:
    assert not {row.source for row in rows_of(task, "train", 1)} & {row.source for row in rows_of(task, "eval")}


@pytest.mark.parametrize("task", TASKS)
def test_every_group_has_its_number_of_rows_and_the_groups_are_mixed(task: Task) -> None:
    planned = PLANNED[task]
    for column, split in enumerate(("train", "eval")):
        rows = rows_of(task, split)
        assert Counter(row.group for row in rows) == {group: counts[column] for group, counts in planned.items()}
        assert {row.group for row in rows[: len(rows) // 4]} == set(planned)


@pytest.mark.parametrize("task", TASKS)
def test_the_last_group_is_rare_in_training_only(task: Task) -> None:
    planned = PLANNED[task]
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
def test_the_same_seed_makes_the_same_rows_on_every_machine(task: Task, split: str, checksum: str) -> None:
    text = "\n".join(f"{row.source}\t{row.target}\t{row.group}" for row in rows_of(task, split))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == checksum


@pytest.mark.parametrize(("task", "split"), [("translation", "validation"), ("summarisation", "train")])
def test_an_unknown_task_or_split_is_refused(task: Task, split: str) -> None:
    with pytest.raises(
        ValueError, match=f"no demo `{task}` with split `{split}`: use translation, parsing or text, and train or eval"
    ):
        demo_rows(task, split=split)
