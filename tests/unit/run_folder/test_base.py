"""`model.from_run`: what it names, the record of the copied weights, and the languages that come with them."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from dstrain.config.load import dump_config, load_config
from dstrain.config.schema import RunConfig
from dstrain.errors import UserError
from dstrain.run_folder.base import BaseRun, check_own, has_base, inherit_languages, parse_from_run, read_base
from dstrain.run_folder.began import load_run_config, read_run_config
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import RunFolderError

RECORD = BaseRun("runs/a", run="runs/a", step=7, sha256="0" * 64, source_language="ko", target_language="en")


def build(folder: Path, *overrides: str, from_run: object = "runs/a") -> RunConfig:
    model = f"model={{from_run: '{from_run}'}}"
    return load_config("debug", overrides=[model, f"output_dir={folder}", *overrides])


@pytest.mark.parametrize(
    ("text", "folder", "step", "names"),
    [
        ("runs/a", "runs/a", None, ("best", "final")),
        ("runs/a@best", "runs/a", None, ("best",)),
        ("runs/a@1200", "runs/a", 1200, ("best", "final")),
        ("runs/me@home", "runs/me@home", None, ("best", "final")),
        ("runs/me@home@12", "runs/me@home", 12, ("best", "final")),
        ("@12", "@12", None, ("best", "final")),
    ],
)
def test_a_run_is_named_with_its_best_model_or_a_step(
    text: str, folder: str, step: int | None, names: tuple[str, ...]
) -> None:
    found = parse_from_run(text)
    assert (str(found.folder.path), found.step, found.names) == (folder, step, names)


def test_the_best_model_stands_above_the_last_one_and_a_step_means_no_folder(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    assert parse_from_run(str(tmp_path)).find_model() == tmp_path / "final"
    assert parse_from_run(f"{tmp_path}@best").find_model() is None
    (tmp_path / "best").mkdir()
    assert parse_from_run(str(tmp_path)).find_model() == tmp_path / "best"
    assert parse_from_run(f"{tmp_path}@3").find_model() is None


def test_the_model_lies_in_the_run_folder_and_is_not_part_of_the_recipe(tmp_path: Path) -> None:
    one, other = build(tmp_path / "one"), build(tmp_path / "other")
    assert one.model.name == f"{tmp_path}/one/base"
    assert one.model_dump()["model"] == other.model_dump()["model"]
    assert one.model_dump()["model"]["name"] is None
    again = RunConfig.model_validate(one.model_dump())
    assert again == one
    assert again.model.name == one.model.name


def test_a_moved_run_folder_has_its_model_where_it_lies_now(tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "config.yaml").write_text(dump_config(build(tmp_path / "before")))
    assert read_run_config(RunFolder(tmp_path / "moved")).model.name == f"{tmp_path}/moved/base"


def test_the_record_is_that_of_the_run_that_the_recipe_names(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_base(folder) is None
    assert not has_base(build(tmp_path))
    folder.base_record.write_text(json.dumps(asdict(RECORD)))
    assert read_base(folder) == RECORD
    assert has_base(build(tmp_path))
    assert not has_base(build(tmp_path, from_run="runs/a@best"))
    folder.base_record.write_text('{"run": 3}')
    with pytest.raises(RunFolderError, match=r"base\.json"):
        read_base(folder)


def test_languages_of_the_other_run_hold_where_the_recipe_names_none(tmp_path: Path) -> None:
    none = ["task.source_language=null", "task.target_language=null"]
    config = inherit_languages(build(tmp_path, *none), of_run=("ko", "en"))
    assert config.languages == ("ko", "en")
    own = inherit_languages(build(tmp_path, "task.source_language=ja", none[1]), of_run=("ko", "en"))
    assert own.languages == ("ja", "en")
    sources = "data.train=[{demo: translation, source_language: fr, target_language: de}]"
    of_rows = inherit_languages(build(tmp_path, *none, sources), of_run=("ko", "en"))
    assert (of_rows.task.source_language, of_rows.task.target_language) == (None, None)


def test_a_resumed_run_has_the_languages_of_the_record_when_the_other_run_is_gone(tmp_path: Path) -> None:
    other, own = tmp_path / "other", RunFolder(tmp_path / "own")
    other.mkdir()
    (other / "config.yaml").write_text(dump_config(load_config("debug")))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        dump_config(build(own.path, "task.source_language=null", "task.target_language=null", from_run=other))
    )
    first = load_run_config(str(recipe))
    assert first.languages == load_config("debug").languages == ("ko", "en")
    (other / "config.yaml").unlink()
    assert load_run_config(str(recipe)).languages == (None, None)
    own.path.mkdir()
    own.base_record.write_text(json.dumps(asdict(RECORD) | {"from_run": str(other)}))
    assert load_run_config(str(recipe)) == first


def test_a_run_does_not_begin_from_itself(tmp_path: Path) -> None:
    config = build(tmp_path, from_run=f"{tmp_path}/../{tmp_path.name}@best")
    with pytest.raises(UserError, match="is this run's own folder: name another run, or another output_dir"):
        check_own(config, wanted=parse_from_run(config.model.from_run or ""))
