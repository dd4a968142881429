"""The whole vocabulary: its two halves, and the defaults that depend on other keys."""

import pytest

from dstrain.config.load import load_config
from dstrain.config.schema import RECIPE_KEYS, RunConfig


def test_every_top_level_key_belongs_to_one_half_or_names_the_run() -> None:
    machine = {"machine", "checkpoint", "logging"}
    assert RunConfig.model_fields.keys() == {*RECIPE_KEYS, *machine, "name", "output_dir", "card"}


@pytest.mark.parametrize(
    ("recipe", "metric", "unknown_token"),
    [("demo_translation", "bleu", "keep"), ("demo_parsing", "exact_match", "error")],
)
def test_what_is_null_takes_the_default_of_the_task(recipe: str, metric: str, unknown_token: str) -> None:
    nothing = ("evaluation.best_metric=null", "data.rules.unknown_token=null")
    config = load_config(recipe, overrides=nothing)
    assert (config.best_metric, config.unknown_token_rule) == (metric, unknown_token)
    config = load_config(recipe, overrides=("evaluation.best_metric=loss", "data.rules.unknown_token=skip"))
    assert (config.best_metric, config.unknown_token_rule) == ("loss", "skip")


def test_the_run_folder_is_named_after_the_run_unless_it_is_given() -> None:
    assert load_config("debug", overrides=["name=mine", "output_dir=null"]).run_dir == "runs/mine"
    assert load_config("debug", overrides=["output_dir=/big/disk"]).run_dir == "/big/disk"


def test_an_exported_model_has_the_languages_of_the_task_or_of_the_first_training_source() -> None:
    model = ["model.scratch=null", "model.name=some/folder", "data.train.0.source_language=ko"]
    rows = [*model, "data.train.0.target_language=fr", "task.source_language=null"]
    assert load_config("debug", overrides=[*rows, "task.target_language=en"]).languages == ("ko", "en")
    assert load_config("debug", overrides=[*rows, "task.target_language=null"]).languages == ("ko", "fr")
