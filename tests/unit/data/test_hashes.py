"""Hashes of files: those of unchanged files are not computed again, and every change is noticed."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dstrain.data import hashes
from dstrain.data.hashes import SETTLED_SECONDS, hash_file, hash_once


def much_later() -> float:
    """A time at which the file that a test has just written has long been unchanged."""
    return time.time() + 10 * SETTLED_SECONDS


class Reader:
    """`hash_once` at a later time, which counts how often a file was read."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.num_read = folder, 0
        monkeypatch.setattr(hashes, "hash_file", self._hash_file)

    def _hash_file(self, path: Path, *, beat: Callable[[], None]) -> str:
        self.num_read += 1
        return hash_file(path, beat=beat)

    def __call__(self, path: Path, *, now: Callable[[], float] = much_later) -> str:
        found = hash_once(path, folder=self.folder, now=now)
        assert found == hashlib.sha256(path.read_bytes()).hexdigest()
        return found


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    return Reader(tmp_path / "hashes", monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"a\tb\n")
    return path


def test_a_hash_is_that_of_the_content_and_every_block_is_a_beat(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "BLOCK_BYTES", 3)
    beats: list[int] = []
    assert hash_file(path, beat=lambda: beats.append(1)) == hashlib.sha256(b"a\tb\n").hexdigest()
    assert len(beats) == 2


def test_an_unchanged_file_is_read_once(reader: Reader, path: Path) -> None:
    assert reader(path) == reader(path)
    assert reader.num_read == 1


def replace_content(path: Path) -> None:
    path.write_bytes(b"a\tc\n")


def keep_modification_time(path: Path) -> None:
    """As `cp --preserve`, `rsync --times` and unpacked archives do."""
    before = path.stat()
    path.write_bytes(b"a\tc\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def rename_another_here(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"a\tc\n")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)


@pytest.mark.parametrize("change", [replace_content, keep_modification_time, rename_another_here])
def test_a_changed_file_of_the_same_size_is_read_again(
    change: Callable[[Path], None], reader: Reader, path: Path
) -> None:
    first = reader(path)
    change(path)
    assert reader(path) != first
    assert reader.num_read == 2


def test_another_file_with_the_same_content_has_a_hash_of_its_own(reader: Reader, path: Path) -> None:
    other = path.with_name("b.tsv")
    other.write_bytes(path.read_bytes())
    assert reader(path) == reader(other)
    assert reader.num_read == 2


@pytest.mark.parametrize("age", [0.0, SETTLED_SECONDS - 1, -3600.0], ids=["now", "a moment ago", "in the future"])
def test_the_hash_of_a_file_that_changed_a_moment_ago_is_not_kept(age: float, reader: Reader, path: Path) -> None:
    for _ in range(2):
        reader(path, now=lambda: path.stat().st_mtime + age)
    assert reader.num_read == 2


def test_a_file_without_a_time_is_always_read(reader: Reader, path: Path) -> None:
    os.utime(path, ns=(0, 0))
    assert reader(path) == reader(path)
    assert reader.num_read == 2


def test_a_file_that_changes_while_it_is_read_is_read_again(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(path: Path, *, beat: Callable[[], None]) -> str:
        found = hash_file(path, beat=beat)
        path.write_bytes(path.read_bytes() + b"c\td\n")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(hashes, "hash_file", append)
        hash_once(path, folder=tmp_path / "hashes", now=much_later)
    assert not (tmp_path / "hashes").exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b"null", b'{"sha256": 3}', b"\xff"])
def test_a_damaged_entry_is_not_used(content: bytes, reader: Reader, path: Path) -> None:
    reader(path)
    (entry,) = reader.folder.iterdir()
    entry.write_bytes(content)
    reader(path)
    assert reader.num_read == 2


def test_a_folder_that_cannot_be_written_is_no_error(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    reader = Reader(tmp_path / "file", monkeypatch)
    assert reader(path) == reader(path)
    assert reader.num_read == 2
