"""The table of fields: every key of the schema is in it, and what follows from a change is what the table says."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from dstrain.checkpoint.changes import RULES, SAID, UNKNOWN, Change, Part, find_parts, find_rule
from dstrain.config.schema import RECIPE_KEYS, RunConfig
from dstrain.data.cuts import Cut

DATA = {"train": "a", "eval": "b"}


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a field may hold: itself, or inside a union or a list."""
    if isinstance(annotation, type) and not isinstance(annotation, UnionType) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)


def leaves(section: type[BaseModel], *, at: str = "") -> Iterator[str]:
    """Dotted names of all keys, items of lists without their number."""
    for name, field in section.model_fields.items():
        inside = list(sections_in(field.annotation))
        for each in inside:
            yield from leaves(each, at=f"{at}{name}.")
        if not inside:
            yield f"{at}{name}"


def recipe_keys() -> list[str]:
    return [key for key in leaves(RunConfig) if key.split(".")[0] in RECIPE_KEYS]


def test_the_walk_finds_every_section() -> None:
    assert {"seed", "model.scratch.num_heads", "data.train.repeat", "training.early_stopping.patience"} < set(
        recipe_keys()
    )


@pytest.mark.parametrize("key", recipe_keys())
def test_every_key_of_the_recipe_has_its_rule(key: str) -> None:
    assert find_rule(key) is not UNKNOWN


def test_every_key_that_cuts_steps_has_its_rule_and_the_table_has_no_other_key() -> None:
    cuts = {f"machine.{key}" for key in Cut.__dataclass_fields__}
    assert cuts < RULES.keys()
    known = recipe_keys()
    assert [
        name
        for name in RULES.keys() - cuts - {"tokenizer", "vocabulary"}
        if not any(key == name or key.startswith(f"{name}.") for key in known)
    ] == []


def test_only_sections_that_act_as_one_are_in_the_table_as_one() -> None:
    # a new key in any other section is missed by the test above until it has a rule
    whole = {name for name in RULES if name not in recipe_keys() and not name.startswith("machine.")}
    assert whole == {
        "model.scratch", "model.adapter", "data.train", "data.eval", "data.rules", "training.early_stopping", "tokenizer",
        "vocabulary", "evaluation.external",
    }  # fmt: skip


def test_the_documentation_lists_every_field_of_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    listed = [cell for line in page.splitlines() for cell in line.split("|")[1:2]]
    assert sorted(RULES) == sorted(
        name for cell in listed for name in re.findall(r"`([a-z0-9_.]+)`", cell) if name in RULES
    )


def test_a_key_in_a_section_or_a_list_has_the_rule_of_the_section() -> None:
    assert find_rule("training.betas.0") is RULES["training.betas"]
    assert find_rule("data.train.3.max_rows") is RULES["data.train"]
    assert find_rule("model.scratch") is find_rule("model.scratch.num_heads")
    assert find_rule("training.no_such_key") is UNKNOWN


def test_a_refused_change_starts_nothing_anew_and_every_rule_says_what_it_does() -> None:
    assert all(rule.effect and not (rule.is_refused and rule.parts) for rule in RULES.values())


def test_a_part_is_described_by_its_owner_or_here() -> None:
    by_owner = {Part.PLACE, Part.ROWS, Part.SCORES, Part.PATIENCE}
    assert set(SAID) == set(Part) - by_owner - {Part.EVAL_ROWS}


@pytest.mark.parametrize(
    ("field", "new", "parts"),
    [
        ("training.batch_size", {}, {Part.PLACE}),
        ("seed", {}, {Part.PLACE}),
        ("training.optimizer", {}, {Part.OPTIMIZER}),
        ("training.label_smoothing", {}, {Part.LOSS}),
        ("training.early_stopping.patience", {}, {Part.PATIENCE}),
        ("evaluation.length_penalty", {}, {Part.SCORES}),
        ("evaluation.every_steps", {}, set()),
        ("training.learning_rate", {}, set()),
        ("data.eval.0.name", {}, {Part.SCORES}),
        ("data.train.0.max_rows", {}, set()),
        ("data.train.0.max_rows", {"train": "other"}, {Part.ROWS}),
        ("data.rules.too_long", {}, set()),
        ("data.rules.too_long", {"train": "other"}, {Part.ROWS}),
        ("task.source_prefix", {"train": "other", "eval": "other"}, {Part.ROWS, Part.SCORES}),
        ("task.max_source_tokens", {"eval": "other"}, {Part.SCORES}),
    ],
)
def test_parts_that_depend_on_rows_reset_only_where_the_rows_are_others(
    field: str, new: dict[str, str], parts: set[Part]
) -> None:
    assert find_parts([Change(field, 1, 2)], old=DATA, new=DATA | new) == parts


def test_several_changes_add_up() -> None:
    changes = [Change("seed", 1, 2), Change("evaluation.num_beams", 1, 4)]
    assert find_parts(changes, old=DATA, new=DATA) == {Part.PLACE, Part.SCORES}
    assert find_parts([], old=DATA, new=DATA) == frozenset()


def test_a_change_reads_as_a_sentence() -> None:
    assert str(Change("seed", 1, 2)) == "seed: 1 in the checkpoint, 2 now"
    assert (
        str(Change("tokenizer", "a", None, "fingerprint")) == "tokenizer (fingerprint): 'a' in the checkpoint, null now"
    )
