"""Names in a run folder."""

from pathlib import Path

import pytest

from dstrain.config.load import load_config
from dstrain.errors import UserError
from dstrain.run_folder.layout import RunFolder, make_run_folder


@pytest.mark.parametrize("name", ["../x", "", "a b", "-x", "a/b"])
def test_the_name_of_a_test_set_must_be_a_folder_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--as"):
        RunFolder(tmp_path).test_set(name)


def test_a_test_set_has_the_names_of_a_run_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path).test_set("flores")
    assert folder.score_file(5) == tmp_path / "test_sets" / "flores" / "scores" / "step-00000005.json"
    assert folder.hypotheses(5) == tmp_path / "test_sets" / "flores" / "hypotheses" / "step-00000005"


def test_score_files_are_listed_by_step(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.scores.mkdir()
    for step in (100, 5, 20):
        folder.score_file(step).touch()
    (folder.scores / "step-00000005.json.tmp-1").touch()  # a kill left it
    assert [path.name for path in folder.score_files()] == [f"step-{step:08d}.json" for step in (5, 20, 100)]


def test_a_run_folder_that_cannot_be_created_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    config = load_config("debug", overrides=[f"output_dir={tmp_path}/file/run"])
    with pytest.raises(UserError, match=r"output_dir: .*file/run cannot be made"):
        make_run_folder(config)


def test_a_link_to_nothing_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    config = load_config("debug", overrides=[f"output_dir={tmp_path}/link"])
    with pytest.raises(UserError, match=r"link cannot be made \(it is a link to nothing\)"):
        make_run_folder(config)
