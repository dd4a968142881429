"""What an exported folder says of its task: written of a recipe, read by `dstrain predict`."""

from pathlib import Path

import pytest

from dstrain.config.load import load_config
from dstrain.errors import UserError
from dstrain.run.predict_request import PredictRequest, parse_arguments, plan_prediction
from dstrain.run.task_settings import read_task_settings, settings_of, write_task_settings
from dstrain.run_folder.layout import TASK_SETTINGS


def request(*arguments: object) -> PredictRequest:
    return plan_prediction(parse_arguments([str(argument) for argument in arguments], program="predict"))


@pytest.mark.parametrize("recipe", ["demo_parsing", "demo_translation", "demo_text"])
def test_a_folder_predicts_by_the_task_of_its_recipe(tmp_path: Path, recipe: str) -> None:
    config = load_config(recipe)
    write_task_settings(tmp_path, config=config)
    assert read_task_settings(tmp_path) == settings_of(config)
    with_recipe = request(tmp_path, "--config", recipe)
    if config.task.own is None:
        assert request(tmp_path).settings.task == with_recipe.settings.task
        assert request(tmp_path).recipe is None


def test_a_folder_of_several_directions_asks_which(tmp_path: Path) -> None:
    source = {"demo": "translation", "source_language": "ko", "target_language": "en"}
    other = source | {"source_language": "en", "target_language": "ko"}
    config = load_config("demo_translation", overrides=[f"data.train=[{_flow(source)}, {_flow(other)}]"])
    write_task_settings(tmp_path, config=config)
    with pytest.raises(
        UserError, match=r"several values of source_language \(`ko`, `en`\): say which with --source-lang"
    ):
        request(tmp_path)
    task = request(tmp_path, "--source-language", "en", "--target-language", "ko").settings.task
    assert (task.source_language, task.target_language) == ("en", "ko")


def _flow(source: dict[str, str]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in source.items()) + "}"


def test_a_model_folder_starts_no_code(tmp_path: Path) -> None:
    config = load_config("demo_translation", overrides=["task.kind=my_tasks:Headlines", "evaluation.metrics=[chrf]"])
    write_task_settings(tmp_path, config=config)
    with pytest.raises(
        UserError, match=r"class `my_tasks:Headlines` .* a model folder starts no code: name the recipe"
    ):
        request(tmp_path)


def test_a_published_folder_has_none_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert read_task_settings(tmp_path) is None
    assert read_task_settings(tmp_path / "owner" / "name") is None
    (tmp_path / TASK_SETTINGS).write_text('{"task": {"kind": "parsing"}}')
    with pytest.raises(UserError, match=f"{TASK_SETTINGS}: trained_with: Field required"):
        request(tmp_path)
