"""What a tracker has been sent: kept over moves, not over copies."""

import shutil
from pathlib import Path

import pytest

from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.reading import RunFolderError
from dstrain.run_folder.tracked import Sent, Tracked, read_tracked, write_tracked

SENT = Sent(120, {"eval": (50, 100), "test_sets/flores": (100,)}, (("train", 130, 7), ("eval", 75, 8)), 9)


def make(path: Path) -> tuple[RunFolder, Tracked]:
    path.mkdir()
    folder = RunFolder(path)
    fresh = read_tracked(folder, name="wandb")
    tracked = Tracked(fresh.run_id, fresh.path, fresh.inode, {"https://host team": SENT})
    write_tracked(folder, tracked, name="wandb")
    return folder, tracked


def test_it_is_read_as_it_was_written_and_each_tracker_has_its_own(tmp_path: Path) -> None:
    folder, tracked = make(tmp_path / "run")
    assert read_tracked(folder, name="wandb") == tracked
    other = read_tracked(folder, name="mlflow")
    assert other.sent == {}
    assert other.run_id != tracked.run_id
    assert tracked.run_id.isalnum()


def test_a_copy_of_the_folder_is_another_run_and_has_been_sent_nothing(tmp_path: Path) -> None:
    folder, tracked = make(tmp_path / "run")
    shutil.copytree(folder.path, tmp_path / "copy")
    copied = read_tracked(RunFolder(tmp_path / "copy"), name="wandb")
    assert copied.run_id != tracked.run_id
    assert copied.sent == {}
    assert read_tracked(folder, name="wandb") == tracked


def test_a_folder_that_was_moved_linked_or_restored_stays_the_run(tmp_path: Path) -> None:
    folder, tracked = make(tmp_path / "run")
    (tmp_path / "link").symlink_to(folder.path)
    assert read_tracked(RunFolder(tmp_path / "link"), name="wandb") == tracked
    shutil.copytree(folder.path, tmp_path / "backup")
    folder.path.rename(tmp_path / "moved")
    assert read_tracked(RunFolder(tmp_path / "moved"), name="wandb") == tracked
    (tmp_path / "backup").rename(folder.path)
    assert read_tracked(folder, name="wandb") == tracked


@pytest.mark.parametrize("content", ["", "{", '{"run_id": "x"}', '{"run_id": 1, "path": "", "inode": 1}'])
def test_a_damaged_file_is_refused_instead_of_showing_the_run_twice(tmp_path: Path, content: str) -> None:
    folder, _ = make(tmp_path / "run")
    folder.tracked("wandb").write_text(content)
    with pytest.raises(RunFolderError, match=r"wandb\.json: .*remove the file"):
        read_tracked(folder, name="wandb")
