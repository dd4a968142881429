"""A folder of the cache is used only as it was written; nothing in it leads outside."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dstrain.errors import UserError
from dstrain.run_folder.sealed import SEAL, check_if_made, copy_sealed, sealed_folder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    with sealed_folder(tmp_path / "cache" / "key") as draft:
        (draft / "ids.bin").write_bytes(b"\1\0\0\0")
        (draft / "sub").mkdir()
        (draft / "sub" / "text.json").write_text("{}")
    return tmp_path / "cache" / "key"


def link_to_secret(path: Path) -> None:
    secret = path.parents[2] / "secret"
    secret.write_text("secret")
    path.unlink(missing_ok=True)
    path.symlink_to(secret)


def test_a_folder_is_copied_as_it_was_made_and_without_its_seal(made: Path, tmp_path: Path) -> None:
    check_if_made(made)
    (tmp_path / "copy").mkdir()
    copy_sealed(made, to=tmp_path / "copy")
    names = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*")}
    assert names == {"ids.bin", "sub", "sub/text.json"}
    assert (tmp_path / "copy" / "ids.bin").read_bytes() == b"\1\0\0\0"


def test_a_folder_that_is_not_there_needs_no_check(tmp_path: Path) -> None:
    check_if_made(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda folder: (folder / "ids.bin").write_bytes(b"\2\0\0\0"), "ids.bin"),  # of the same size
        (lambda folder: (folder / "ids.bin").unlink(), "ids.bin"),
        (lambda folder: link_to_secret(folder / "ids.bin"), "ids.bin"),
        (lambda folder: link_to_secret(folder / "notes.txt"), "notes.txt"),
        (lambda folder: (folder / "more").symlink_to(folder.parent), "more"),
        (lambda folder: (folder / "more.txt").touch(), "more.txt"),
        (lambda folder: os.mkfifo(folder / "pipe"), "pipe"),
        (lambda folder: (folder / SEAL).unlink(), SEAL),
        (lambda folder: (folder / SEAL).write_text("[" * 100_000), SEAL),
        (lambda folder: (folder / SEAL).write_text("[]"), SEAL),
    ],
)
def test_a_folder_that_is_not_as_it_was_made_is_refused_by_file_with_the_way_out(
    change: Callable[[Path], object], name: str, made: Path, tmp_path: Path
) -> None:
    change(made)
    message = f"key/{name}: not as it was written .*: remove {made} and start again"
    with pytest.raises(UserError, match=message):
        check_if_made(made)
    (tmp_path / "copy").mkdir()
    with pytest.raises(UserError, match=message):
        copy_sealed(made, to=tmp_path / "copy")
    assert not any("secret" in path.read_text() for path in (tmp_path / "copy").iterdir())


def test_a_full_disk_names_the_key_of_the_recipe_and_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with sealed_folder(tmp_path / "key"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(
        UserError, match=r"machine.cache_dir: .*key cannot be written \(No space left on device\): free some"
    ):
        fill()
    assert list(tmp_path.iterdir()) == []
