"""Files and folders that appear complete or not at all, even if the writer is killed; and lines appended to a file.

A new version is written under a temporary name beside the old one, and renamed. A reader finds the old version or the new one,
never a part of it. `durable` also makes the new version survive a power cut, which costs a sync.
"""

import filecmp
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from dstrain.run_folder.leftovers import draft_of


def write_file(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Create or replace a file; its folder is made if necessary. If that fails, the old file stays."""
    with open_new(path, durable=durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def open_new(path: Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """A file to write to, which replaces the one at `path` when the block ends without an error."""
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

    An old folder at `path` is replaced; with `keep_same` it stays if it has the same files, so that readers always find them.
    What an earlier kill left at `draft` is removed first.
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
    """An empty folder that becomes `path`. Several processes may make the same one: the first to finish wins."""
    draft = draft_of(path)
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
    """Rename a complete folder to `path`. An old one is set aside first; after a kill, `recover_folder` puts it back."""
    older = _set_aside(path)
    shutil.rmtree(older, ignore_errors=True)
    if path.exists():
        path.rename(older)
    draft.rename(path)
    if durable:
        sync_path(path.parent)
    shutil.rmtree(older, ignore_errors=True)


def recover_folder(path: Path) -> None:
    """Put back the old folder if a kill came between the two renames of `put_in_place`."""
    if not path.exists() and _set_aside(path).is_dir():
        _set_aside(path).rename(path)


def append_line(path: Path, line: str, *, durable: bool = False) -> None:
    """Append a line of JSON to a file; its folder is made if necessary. A line torn by an earlier kill is removed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        _repair_last_line(file)
        file.write(f"{line}\n".encode())
        file.flush()
        if durable:
            os.fsync(file.fileno())


def is_json(line: bytes) -> bool:
    """Whether a line is valid JSON, and so complete."""
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


def _repair_last_line(file: IO[bytes]) -> None:
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
