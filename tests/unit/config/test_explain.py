"""What is said of a key, from the schema, and of its value in a recipe."""

from pathlib import Path

import pytest

from dstrain.config.explain import (
    Explanation,
    explain_key,
    explain_metric,
    explain_trainer_argument,
    find_close,
    find_meant,
)
from dstrain.config.load import read_recipe
from dstrain.config.metrics import METRICS
from dstrain.config.vocabulary import all_keys
from dstrain.config.yaml_source import dotted


def explain(name: str, *, recipe: Path | None = None, overrides: tuple[str, ...] = ()) -> Explanation:
    (path,) = find_meant(name)
    document = None if recipe is None else read_recipe(str(recipe), overrides=overrides)
    return explain_key(path, written=name if name != dotted(path) else "", document=document)


def test_a_key_has_meaning_type_unit_default_and_half() -> None:
    rows = dict(explain("training.warmup_steps").rows)
    assert rows["meaning"]
    assert (rows["type"], rows["unit"], rows["default"]) == ("whole number ≥ 0", "optimizer steps", "0")
    assert rows["half"].startswith("recipe")
    assert dict(explain("machine.reserve_seconds").rows)["unit"] == "seconds"
    assert dict(explain("machine.zero_stage").rows)["half"].startswith("machine")
    assert dict(explain("training.batch_size").rows)["default"] == "required"


def test_a_section_lists_its_keys_with_their_defaults() -> None:
    explanation = explain("training.early_stopping")
    assert [key for key, _, _ in explanation.keys] == ["patience", "min_delta", "significant"]
    assert explanation.keys[0][1] == "required"
    assert all(meaning for _, _, meaning in explanation.keys)
    assert dict(explanation.rows)["type"] == "section or null"


@pytest.mark.parametrize("path", [*all_keys()], ids=dotted)
def test_every_key_can_be_explained(path: tuple[str, ...]) -> None:
    assert find_meant(dotted(path)) == [path]
    explanation = explain_key(path)
    assert explanation.title == dotted(path)
    assert {"meaning", "type", "default"} <= dict(explanation.rows).keys()


def test_items_of_lists_and_names_of_the_users_may_be_written() -> None:
    assert find_meant("data.train.0.path") == find_meant("data.train.N.path") == [("data", "train", "path")]
    assert find_meant("evaluation.external.comet.command") == [("evaluation", "external", "NAME", "command")]


def test_the_last_part_of_a_key_and_the_name_of_a_trainer_lead_to_it() -> None:
    assert find_meant("batch_size") == [("training", "batch_size"), ("evaluation", "batch_size")]
    assert find_meant("num_train_epochs") == [("training", "epochs")]
    assert find_meant("fp16") == [("precision",)]
    assert find_meant("per_device_train_batch_size") == [("training", "batch_size")]
    assert find_meant("max_train_samples") == [("data", "train", "max_rows")]
    assert find_meant("frobnicate") == []


def test_near_misses_are_suggested() -> None:
    assert "training.max_steps" in find_close("training.max_step")
    assert "training.learning_rate" in find_close("learning_rat")
    assert "chrf" in find_close("chrff")
    assert find_close("lrate") == ["training.learning_rate"]
    assert find_close("qqqq") == []


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text("seed: 1\ntraining:\n  batch_size: 8\n  epochs: 2\n")
    child = tmp_path / "child.yaml"
    child.write_text(
        "extends: base.yaml\ntraining:\n  batch_size: 16\ndata:\n  train:\n  - {path: a.tsv}\n  - {path: b.tsv}\n"
    )
    return child


def value(name: str, recipe: Path, *overrides: str) -> list[str]:
    rows = explain(name, recipe=recipe, overrides=overrides).rows
    at = [topic for topic, _ in rows].index("value")
    return [text for _, text in rows[at:]]


def test_a_value_has_the_place_where_it_was_set(recipe: Path) -> None:
    assert value("training.batch_size", recipe) == [f"16  ({recipe}:3)"]
    assert value("seed", recipe) == [f"1  ({recipe.parent / 'base.yaml'}:1)"]
    assert value("seed", recipe, "seed=7") == ["7  (override `seed=7`)"]
    assert value("training.warmup_steps", recipe) == ["not set: the default holds"]


def test_of_a_list_every_item_or_the_one_that_was_asked_for_is_shown(recipe: Path) -> None:
    assert value("data.train.path", recipe) == [
        f'data.train.0.path = "a.tsv"  ({recipe}:6)',
        f'data.train.1.path = "b.tsv"  ({recipe}:7)',
    ]
    assert value("data.train.1.path", recipe) == [f'data.train.1.path = "b.tsv"  ({recipe}:7)']
    assert value("data.train.N.path", recipe)[1:] == [f'data.train.1.path = "b.tsv"  ({recipe}:7)']


def test_every_metric_has_its_meaning_and_unit() -> None:
    for metric in METRICS:
        explanation = explain_metric(metric.name)
        assert explanation is not None
        assert dict(explanation.rows)["unit"] == metric.unit
    assert explain_metric("frobnicate") is None


def test_a_score_of_one_set_is_the_score() -> None:
    explanation = explain_metric("flores/bleu")
    plain = explain_metric("bleu")
    assert explanation is not None
    assert plain is not None
    assert explanation.rows == plain.rows
    assert explanation.title == "flores/bleu (a score)"
    assert explain_metric("flores/frobnicate") is None


@pytest.mark.parametrize("name", ["logging.trackers", "evaluation.external"])
def test_a_section_of_names_lists_the_keys_below_a_name_with_their_meaning(name: str) -> None:
    explanation = explain(name)
    assert explanation.keys
    for key, _, meaning in explanation.keys:
        assert key.startswith("NAME.")
        assert meaning
    assert explain(f"{name}.mine").keys == explanation.keys


@pytest.mark.parametrize("path", [*all_keys()], ids=dotted)
def test_no_link_is_shown_as_markdown(path: tuple[str, ...]) -> None:
    explanation = explain_key(path)
    assert "](" not in "".join(text for row in (*explanation.rows, *explanation.keys) for text in row)


def test_an_item_may_be_written_in_brackets(recipe: Path) -> None:
    assert find_meant("data.train[0].path") == find_meant("data.train[N].path") == [("data", "train", "path")]
    assert find_meant("train[1].path") == [("data", "train", "path")]
    assert value("data.train[1].path", recipe) == [f'data.train.1.path = "b.tsv"  ({recipe}:7)']
    assert len(value("data.train[N].path", recipe)) == 2


def test_the_batch_size_of_one_device_says_that_ours_is_that_of_a_step() -> None:
    explanation = explain_trainer_argument("per_device_train_batch_size")
    assert explanation is not None
    assert "counts the sequences of a step over all ranks" in dict(explanation.rows)["here"]
    assert explain_trainer_argument("batch_size") is None


def test_of_a_section_every_value_is_shown_with_its_place(recipe: Path) -> None:
    base = recipe.parent / "base.yaml"
    assert sorted(value("training", recipe)) == [
        f"training.batch_size = 16  ({recipe}:3)",
        f"training.epochs = 2  ({base}:4)",
    ]
    assert value("data", recipe) == value("data.train.path", recipe)
    assert value("data.train.1", recipe) == [f'data.train.1.path = "b.tsv"  ({recipe}:7)']
    assert value("machine", recipe) == ["not set: the default holds"]
    assert value("training.betas", recipe, "training.betas=[0.9, 0.98]") == [
        "[0.9, 0.98]  (override `training.betas=[0.9, 0.98]`)"
    ]
    assert value("training.betas.1", recipe, "training.betas=[0.9, 0.98]")[0].startswith("training.betas.1 = 0.98  ")
    secret = "hf_" + "a" * 34
    assert secret not in "".join(value("logging", recipe, f"logging.trackers.wandb.token={secret}"))
    settings = "logging.trackers={wandb: {project: a}, mlflow: {project: b}}"
    assert len(value("logging.trackers", recipe, settings)) == 2
    assert value("logging.trackers.mlflow", recipe, settings)[0].startswith('logging.trackers.mlflow.project = "b"  ')
