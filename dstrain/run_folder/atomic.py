"""Files and folders that appear complete or not at all, whatever is killed meanwhile, and rows added to a file.

A new version is written under a name of its own beside the old one, and renamed. A reader, or whoever comes after a kill,
finds the old version or the new one, never a part. `durable` also makes it survive a power cut, which costs a sync.
"""

import filecmp
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def write_file(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Create or replace a file, its folder included. If that fails, the older file stays."""
    with open_new(path, durable=durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def open_new(path: Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """The new content of a file, which replaces the older one when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with draft.open("wb") as file:
            yield file
            if durable:  # before the rename, which may reach the disk before the content does
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    if durable:
        sync_path(path.parent)


@contextmanager
def new_folder(path: Path, *, draft: Path, durable: bool = True, keep_same: bool = False) -> Iterator[Path]:
    """`draft`, an empty folder that is renamed to `path` when the block ends without an error.

    An older folder at `path` is replaced; with `keep_same` it stays if it has the same files, so that whoever reads them
    never misses them. What an earlier kill left at `draft` is removed first.
    """
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    yield draft
    if keep_same and _are_same(draft, path):
        shutil.rmtree(draft)
        return
    if durable:
        sync_tree(draft)
    put_in_place(draft, path=path, durable=durable)


@contextmanager
def shared_folder(path: Path) -> Iterator[Path]:
    """An empty folder that becomes `path`, where several processes may make the same one: the first to finish stays."""
    draft = path.with_name(f"{path.name}.tmp-{secrets.token_hex(8)}")
    draft.mkdir(parents=True)
    try:
        yield draft
        sync_tree(draft)
        try:
            draft.rename(path)
        except OSError:
            if not path.exists():  # else another process was faster
                raise
        sync_path(path.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def put_in_place(draft: Path, *, path: Path, durable: bool) -> None:
    """Rename a complete folder to `path`. An older one is set aside first; `recover_folder` puts it back after a kill."""
    older = _set_aside(path)
    shutil.rmtree(older, ignore_errors=True)
    if path.exists():
        path.rename(older)
    draft.rename(path)
    if durable:
        sync_path(path.parent)
    shutil.rmtree(older, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Put back the older folder if a kill came between the two renames that replace it."""
    if not path.exists() and _set_aside(path).is_dir():
        _set_aside(path).rename(path)


def append_line(path: Path, line: str, *, durable: bool = False) -> None:
    """Add a line of JSON to a file, its folder included; a line torn by an earlier kill is removed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        _mend_last_line(file)
        file.write(f"{line}\n".encode())
        file.flush()
        if durable:
            os.fsync(file.fileno())


def is_json(line: bytes) -> bool:
    """Whether a line is complete."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def sync_path(path: Path) -> None:
    """Make a file's content, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make a folder with everything in it survive a power cut."""
    for path in (*folder.rglob("*"), folder):
        sync_path(path)


def _are_same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files."""
    names, others = (sorted(path.relative_to(top) for path in top.rglob("*") if path.is_file()) for top in (one, other))
    return names == others and all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)


def _set_aside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.old")


def _mend_last_line(file: IO[bytes]) -> None:
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    content = file.read()
    start = content.rfind(b"\n") + 1
    if is_json(content[start:]):
        file.write(b"\n")
    else:
        file.truncate(start)
