"""Files and folders that appear complete or not at all, even if the writer is killed; and lines appended to a file.

A new version is written under a temporary name beside the old one, and renamed. A reader finds the old version or the new one,
never a part of it. `durable` also makes the new version survive a power cut, which costs a sync.

No write leaves the folder that it names: a link under the name that is written is replaced or refused, never followed. Links on
the way to that folder are followed; `ownership.refuse_linked_folders` refuses those that lie in a run folder.
"""

import errno
import filecmp
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from dstrain.errors import UserError
from dstrain.run_folder.leftovers import draft_of

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a full disk or a used-up quota."""
MAX_TORN_BYTES = 64 << 20
"""Most bytes after the last line break that may be a line; more are no line of JSON that was torn by a kill."""
_BLOCK_BYTES = 1 << 20


def write_file(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Create or replace a file; its folder is made if necessary. If that fails, the old file stays."""
    with open_new(path, durable=durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_problem(path: Path) -> str | None:
    """Why no file or folder can be made at `path`, found without making one; None if nothing is known against it."""
    folder = path.absolute().parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not os.path.isdir(folder):
        return f"{folder} is not a folder"
    if os.access(folder, os.W_OK | os.X_OK):
        return None
    is_read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
    return f"{folder} is on a read-only file system" if is_read_only else f"you may not write in {folder}"


@contextmanager
def open_new(path: Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """A file to write to, which replaces the one at `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(path)  # a name that no one can have put a link under, and exclusive besides
    try:
        with draft.open("xb") as file:
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


def overwrite(path: Path, content: bytes) -> None:
    """Replace what a file holds in the room that it has, for a disk on which there is none for another; padded with spaces.

    Not atomic: a kill may leave a part. Raises OSError where that room is too small; then the old content is put back.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise no_ordinary_file(path)
        before = os.pread(descriptor, status.st_size, 0)
        try:
            _write_whole(descriptor, content.ljust(len(before)))
        except OSError:
            _write_whole(descriptor, before)
            os.ftruncate(descriptor, len(before))
            raise
    finally:
        os.close(descriptor)


def _write_whole(descriptor: int, content: bytes) -> None:
    written = 0
    while written < len(content):
        written += os.pwrite(descriptor, content[written:], written)
    os.fsync(descriptor)


@contextmanager
def new_folder(path: Path, *, draft: Path, durable: bool = True, keep_same: bool = False) -> Iterator[Path]:
    """`draft`, an empty folder that is renamed to `path` when the block ends without an error.

    An old folder at `path` is replaced; with `keep_same` it stays if it has the same files, so that readers always find them.
    What an earlier kill left at `draft` is removed first; what a failure leaves there is removed at once.

    Raises:
        OSError: names `path` where the disk is full, whatever the library raised that filled it.
    """
    remove(draft)
    draft.mkdir(parents=True)
    try:
        with named_if_full(path):
            yield draft
            if keep_same and _are_same(draft, path):
                return
            if durable:
                sync_tree(draft)
            put_in_place(draft, path=path, durable=durable)
    finally:
        remove(draft)


@contextmanager
def shared_folder(path: Path) -> Iterator[Path]:
    """An empty folder that becomes `path`. Several processes may make the same one: the first to finish wins.

    Raises:
        OSError: as `new_folder`.
    """
    draft = draft_of(path)
    try:
        with named_if_full(path):
            draft.mkdir(parents=True)
            yield draft
            sync_tree(draft)
            try:
                draft.rename(path)
            except OSError:
                if not path.exists():  # else another process was faster
                    raise
            sync_path(path.parent)
    finally:
        remove(draft)


@contextmanager
def named_if_full(path: Path) -> Iterator[None]:
    """Raises what a full disk makes of writing `path` as an OSError with that path: libraries raise errors of their own."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        code = error.errno if isinstance(error, OSError) else None
        # the libraries for tokenizers and weights only quote the system's words
        code = code or next((each for each in NO_ROOM if os.strerror(each) in str(error)), None)
        if code not in NO_ROOM:
            raise
        raise OSError(code, os.strerror(code), str(path)) from error


def remove(path: Path) -> None:
    """Remove a file, a folder with everything in it, or a link but not what it points to; errors are ignored."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def put_in_place(draft: Path, *, path: Path, durable: bool) -> None:
    """Rename a complete folder to `path`. An old one is set aside first; after a kill, `recover_folder` puts it back."""
    older = _set_aside(path)
    remove(older)
    if os.path.lexists(path):
        path.rename(older)
    draft.rename(path)
    if durable:
        sync_path(path.parent)
    remove(older)


def recover_folder(path: Path) -> None:
    """Put back the old folder if a kill came between the two renames of `put_in_place`."""
    older = _set_aside(path)
    if not path.exists() and older.is_dir() and not older.is_symlink():
        older.rename(path)


def append_line(path: Path, line: str, *, durable: bool = False) -> None:
    """Append a line of JSON to a file; its folder is made if necessary. A line torn by an earlier kill is removed first.

    Raises:
        OSError: it cannot be written, or it is a link or no ordinary file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(_open_ordinary(path), "r+b") as file:
        _repair_last_line(file)
        file.write(f"{line}\n".encode())
        file.flush()
        if durable:
            os.fsync(file.fileno())


def create_file(path: Path, content: bytes = b"", *, durable: bool = False) -> None:
    """Create a file that nothing may lie at, not even a link; raises FileExistsError otherwise."""
    with path.open("xb") as file:
        file.write(content)
        if durable:  # otherwise the name may reach the disk before the content
            file.flush()
            os.fsync(file.fileno())


def is_json(line: bytes) -> bool:
    """Whether a line is valid JSON, and so complete."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
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


def _open_ordinary(path: Path) -> int:
    """A descriptor of an ordinary file to be read and written, created if there is none."""
    # non-blocking, because opening a pipe of that name might wait forever
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o666)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            # the other name may be a file outside, or a copy that somebody keeps: it stays as it is
            os.close(descriptor)
            with path.open("rb") as shared, open_new(path) as own:
                shutil.copyfileobj(shared, own)
            descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise
        raise no_ordinary_file(path) from error
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise no_ordinary_file(path)
    return descriptor


def no_ordinary_file(path: Path) -> OSError:
    """The error about a path at which there is a link, a pipe, a device or a folder instead of a file."""
    return OSError(errno.EINVAL, "a link, or no ordinary file: remove it", str(path))


def _repair_last_line(file: IO[bytes]) -> None:
    """Complete or remove the last line of a file, and go to its end."""
    size = file.seek(0, os.SEEK_END)
    content = _after_last_break(file, size=size)
    if is_json(content):
        file.write(b"\n")
    elif content:
        file.seek(file.truncate(size - len(content)))


def _after_last_break(file: IO[bytes], *, size: int) -> bytes:
    """What follows the last line break of a file, at most MAX_TORN_BYTES of it; leaves the file at its end."""
    length = 1  # nearly always the break itself
    while True:
        start = max(0, size - length)
        file.seek(start)
        end = file.read()
        if b"\n" in end or start == 0 or length > MAX_TORN_BYTES:
            return end[end.rfind(b"\n") + 1 :]
        length = max(_BLOCK_BYTES, 4 * length)
