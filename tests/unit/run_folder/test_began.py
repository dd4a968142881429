"""Run folders of earlier versions keep what their recipe meant then."""

import os
from pathlib import Path

import pytest

from dstrain.config.load import dump_config, load_config
from dstrain.errors import UserError
from dstrain.run_folder.began import load_run_config, read_run_config
from dstrain.run_folder.layout import RunFolder

RECIPE = """\
name: old
task: {kind: parsing}
model: {name: some/model}
data: {train: [{demo: parsing}], eval: [{demo: parsing, split: eval}]}
training: {batch_size: 4, max_steps: 1, learning_rate: 0.001}
"""
KEY = "  segmentation: words\n"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return "recipe.yaml"


def begin(recipe: str, *, has_key: bool) -> RunFolder:
    config = load_config(recipe)
    folder = RunFolder(Path(config.run_dir))
    folder.path.mkdir(parents=True)
    written = dump_config(config)
    assert KEY in written
    folder.config.write_text(written if has_key else written.replace(KEY, ""))
    folder.info.write_text("{}")
    return folder


def test_a_run_that_began_without_the_key_keeps_the_published_segmentation(recipe: str) -> None:
    folder = begin(recipe, has_key=False)
    assert load_run_config(recipe).task.segmentation == "published"  # resumed
    assert load_run_config(str(folder.config)).task.segmentation == "published"  # evaluated, and on its card
    assert load_run_config(recipe, overrides=["task.segmentation=words"]).task.segmentation == "words"
    assert load_run_config(recipe, overrides=["output_dir=elsewhere"]).task.segmentation == "words"


def test_a_run_folder_that_was_moved_keeps_it_too(recipe: str) -> None:
    moved = RunFolder(begin(recipe, has_key=False).path.rename("moved"))
    assert load_run_config(str(moved.config)).task.segmentation == "published"
    assert load_run_config(recipe).task.segmentation == "words"


def test_a_new_run_cuts_words(recipe: str) -> None:
    assert load_run_config(recipe).task.segmentation == "words"
    folder = begin(recipe, has_key=True)
    assert load_run_config(recipe).task.segmentation == "words"
    assert load_run_config(str(folder.config)).task.segmentation == "words"


def test_a_recipe_of_the_name_of_a_configuration_is_no_run_folder(recipe: str) -> None:
    Path(recipe).rename("config.yaml")
    assert load_run_config("config.yaml").task.segmentation == "words"


def test_the_configuration_in_a_run_folder_keeps_its_meaning_too(recipe: str) -> None:
    assert read_run_config(begin(recipe, has_key=False)).task.segmentation == "published"


def test_the_configuration_in_a_run_folder_is_read_with_overrides(recipe: str) -> None:
    assert read_run_config(begin(recipe, has_key=True), overrides=["seed=7"]).seed == 7


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "missing"])
def test_a_configuration_that_is_no_ordinary_file_is_refused(kind: str, recipe: str, tmp_path: Path) -> None:
    folder = begin(recipe, has_key=True)
    moved = folder.config.rename(tmp_path / "moved.yaml")
    if kind == "link":
        folder.config.symlink_to(moved)
    elif kind == "pipe":
        os.mkfifo(folder.config)
    elif kind == "folder":
        folder.config.mkdir()
    reason = "No such file or directory" if kind == "missing" else "a link, or no ordinary file: remove it"
    with pytest.raises(UserError) as caught:
        read_run_config(folder)
    assert str(caught.value) == f"{folder.config}: {reason}"
    assert load_run_config(recipe).name == "old"  # a recipe that trains in this folder is read all the same


def test_the_configuration_in_a_run_folder_leads_to_no_other_file(recipe: str, tmp_path: Path) -> None:
    folder = begin(recipe, has_key=True)
    (tmp_path / "secret.yaml").write_text("secret: 1\n")
    folder.config.write_text(f"extends: {tmp_path / 'secret.yaml'}\n{folder.config.read_text()}")
    with pytest.raises(UserError, match="extends: unknown key") as caught:
        read_run_config(folder)
    assert "secret: " not in str(caught.value)
