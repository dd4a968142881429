"""Names in a run folder."""

from pathlib import Path

import pytest

from dstrain.run_folder.layout import RunFolder


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


def test_every_path_of_the_layout_is_among_its_folders_or_files(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    named = {getattr(folder, name) for name, value in vars(RunFolder).items() if isinstance(value, property)}
    paths = {path for path in named if isinstance(path, Path)} - {folder.debug_mark}
    tops = {tmp_path / path.relative_to(tmp_path).parts[0] for path in paths}
    assert tops <= {*folder.folders, *folder.files}
