"""Every kind of damage to every file of a checkpoint is found and named, and the previous checkpoint is used."""

import errno
import os
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from dstrain.checkpoint.manifest import MANIFEST
from dstrain.checkpoint.store import newest_valid, trim_checkpoint
from tests.unit.checkpoint.checkpoint_cases import OPTIMIZER, STATE, WEIGHTS, flip, save

WEIGHTS_OF_RANK_1 = "weights-00001.safetensors"
OPTIMIZER_OF_RANK_1 = "optimizer-00001.safetensors"
FILES = (WEIGHTS, WEIGHTS_OF_RANK_1, OPTIMIZER, OPTIMIZER_OF_RANK_1, STATE, MANIFEST)


def cut_off_the_last_byte(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def append_a_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def flip_the_first_bit(path: Path) -> None:
    flip(path, bit=0)


def flip_a_bit_in_the_middle(path: Path) -> None:
    flip(path, bit=4 * path.stat().st_size + 3)


def flip_the_last_bit(path: Path) -> None:
    flip(path, bit=8 * path.stat().st_size - 1)


def put_zeros_in_its_place(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def remove(path: Path) -> None:
    path.unlink()


def put_a_directory_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_a_pipe_in_its_place(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def put_a_link_to_an_equal_file_in_its_place(path: Path) -> None:
    outside = path.parents[1] / f"copy-of-{path.name}"
    shutil.copy(path, outside)
    path.unlink()
    path.symlink_to(outside)


def put_a_relative_link_inside_in_its_place(path: Path) -> None:
    path.rename(path.with_name("renamed"))
    path.symlink_to("renamed")


def put_a_link_to_nowhere_in_its_place(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def put_an_endless_device_in_its_place(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


DAMAGES = (
    cut_off_the_last_byte,
    cut_in_half,
    empty,
    append_a_byte,
    flip_the_first_bit,
    flip_a_bit_in_the_middle,
    flip_the_last_bit,
    put_zeros_in_its_place,
    remove,
    put_a_directory_in_its_place,
    put_a_pipe_in_its_place,
    put_a_link_to_an_equal_file_in_its_place,
    put_a_relative_link_inside_in_its_place,
    put_a_link_to_nowhere_in_its_place,
    put_an_endless_device_in_its_place,
)


def save_of_two_ranks(root: Path, *, step: int) -> Path:
    files = {WEIGHTS_OF_RANK_1: "more weights", OPTIMIZER_OF_RANK_1: "more optimizer", STATE: '{"step": 1}'}
    return save(root, step=step, files=files)


def find(root: Path) -> tuple[int | None, list[str]]:
    problems: list[str] = []
    found = newest_valid(root, on_broken=problems.append)
    return (found[1].step if found else None), problems


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_found_and_named_and_the_previous_checkpoint_is_used(
    damage: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    save_of_two_ranks(tmp_path, step=1)
    directory = save_of_two_ranks(tmp_path, step=2)
    assert find(tmp_path) == (2, [])
    damage(directory / name)
    step, (problem,) = find(tmp_path)
    assert step == 1
    assert name in problem
    assert str(directory) in problem


@pytest.mark.parametrize("name", [WEIGHTS, WEIGHTS_OF_RANK_1, STATE, MANIFEST])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_to_a_checkpoint_of_weights_only_is_found(
    damage: Callable[[Path], None], name: str, tmp_path: Path
) -> None:
    directory = save_of_two_ranks(tmp_path, step=2)
    trim_checkpoint(directory)
    assert find(tmp_path) == (None, [])
    damage(directory / name)
    _, (problem,) = find(tmp_path)
    assert name in problem


def test_every_flipped_bit_of_a_file_is_found(tmp_path: Path) -> None:
    save_of_two_ranks(tmp_path, step=1)
    path = save_of_two_ranks(tmp_path, step=2) / STATE
    for bit in range(8 * path.stat().st_size):
        flip(path, bit=bit)
        assert find(tmp_path)[0] == 1
        flip(path, bit=bit)
    assert find(tmp_path) == (2, [])


class Unreadable(BytesIO):
    """An open file that cannot be read."""

    def readinto(self, *args: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    read = readinto  # type: ignore[assignment]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fails", ["open", "read"])
def test_a_file_that_cannot_be_read_is_named_and_the_previous_checkpoint_is_used(
    fails: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_of_two_ranks(tmp_path, step=1)
    bad = save_of_two_ranks(tmp_path, step=2) / name
    opened = Path.open

    def open_or_fail(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path != bad:
            return opened(path, *args, **kwargs)
        if fails == "open":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return Unreadable()

    monkeypatch.setattr(Path, "open", open_or_fail)
    step, (problem,) = find(tmp_path)
    assert step == 1
    assert problem == f"{bad}: cannot be read (Input/output error)"


def test_a_directory_that_cannot_be_read_is_named_and_the_previous_checkpoint_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_of_two_ranks(tmp_path, step=1)
    bad = save_of_two_ranks(tmp_path, step=2)
    lstat = os.lstat

    def lstat_or_fail(path: Any, **kwargs: Any) -> os.stat_result:
        if bad in Path(path).parents:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return lstat(path, **kwargs)

    def stat_or_fail(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        return lstat_or_fail(path)

    monkeypatch.setattr(os, "lstat", lstat_or_fail)
    monkeypatch.setattr(Path, "stat", stat_or_fail)
    monkeypatch.setattr(Path, "lstat", stat_or_fail)
    step, (problem,) = find(tmp_path)
    assert step == 1
    assert problem == f"{bad / MANIFEST}: cannot be read (Input/output error)"
