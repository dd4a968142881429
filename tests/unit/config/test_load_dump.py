"""What a configuration becomes as text and as a hash, and that nothing makes loading fail in an unplanned way."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dstrain.config.load import ConfigError, dump_config, load_config, recipe_hash
from dstrain.config.schema import RunConfig

GOOD = """\
name: trial
model: {name: some/model}
task: {kind: translation}
data: {train: [{demo: translation}], eval: [{demo: translation, split: eval}]}
training: {batch_size: 16, epochs: 6, learning_rate: 3.0e-4}
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


def test_the_dump_loads_back_equal_and_is_stable(tmp_path: Path, good: Path) -> None:
    config = load_config(str(good), overrides=["training.early_stopping.patience=3", "evaluation.every_steps=5"])
    text = dump_config(config)
    rewritten = tmp_path / "again.yaml"
    rewritten.write_text(text)
    again = load_config(str(rewritten))
    assert again == config
    assert dump_config(again) == text
    assert yaml.safe_load(text).keys() == RunConfig.model_fields.keys()
    assert not any(line.startswith("extends") for line in text.splitlines())


PLAIN_TRAPS = ["no", "3e-4", "1e5", "1:30", "2022-01-01", "010", "null", "~", "1_000", "0x1f", "한국어"]
TRAPS = [*PLAIN_TRAPS, "", " parse: ", "a: b", "# c", "a\x85b", "\u2028", "a\nb\r"]


@settings(deadline=None)
@given(prefix=st.one_of(st.sampled_from(TRAPS), st.text(st.characters(exclude_categories=["Cs"]), max_size=20)))
def test_the_dump_keeps_every_text_as_text(tmp_path_factory: pytest.TempPathFactory, prefix: str) -> None:
    values: dict[str, Any] = yaml.safe_load(GOOD)
    values["training"]["learning_rate"] = 3e-4
    values["task"]["source_prefix"] = prefix
    config = RunConfig.model_validate(values)
    path = tmp_path_factory.getbasetemp() / "dump.yaml"
    path.write_text(dump_config(config), encoding="utf-8", newline="")
    assert load_config(str(path)) == config


def test_the_recipe_hash_follows_the_recipe_and_not_the_machine(good: Path) -> None:
    base = load_config(str(good))
    machine = load_config(
        str(good), overrides=["machine.zero_stage=3", "name=other", "output_dir=x", "logging.every_steps=1"]
    )
    recipe = load_config(str(good), overrides=["training.learning_rate=1e-3"])
    assert recipe_hash(machine) == recipe_hash(base) != recipe_hash(recipe)
    same = load_config(str(good), overrides=["training.epochs=6.0", "training.learning_rate=0.0003", "seed=42"])
    assert recipe_hash(same) == recipe_hash(base)


PARTS = ["scratch", "train", "eval", "path", "demo", "kind", "epochs", "betas", "deepspeed", "fp16", "0", "1", "x"]
KEYS = [*RunConfig.model_fields, *PARTS]
VALUES = [
    "1",
    "-1",
    "0.5",
    "x",
    "no",
    "null",
    "true",
    "[]",
    "{}",
    "[1]",
    "[{}]",
    "{x: 1}",
    "[null]",
    "''",
    "1:30",
    "[[",
]
one_override = st.tuples(st.lists(st.sampled_from(KEYS), min_size=1, max_size=4), st.sampled_from(VALUES))


@settings(deadline=None)
@given(changes=st.lists(one_override, min_size=1, max_size=4))
def test_no_combination_of_overrides_ends_in_anything_but_a_config_or_problems(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[list[str], str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_text(GOOD)
    overrides = [f"{'.'.join(keys)}={value}" for keys, value in changes]
    try:
        config = load_config(str(path), overrides=overrides, check_files=True)
    except ConfigError:
        return  # refused in the one way a user is told about; anything else fails the test
    assert load_config(str(path), overrides=overrides) == config
