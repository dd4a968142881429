"""Folders of a shared cache: sealed with the hash of every file when they are made, and checked before they are used.

Whoever can write to the cache can also forge a seal. The check finds what a disk, a sync or a hand has changed, and no link leads
out of the cache.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dstrain.errors import UserError
from dstrain.run_folder.atomic import NO_ROOM, create_file, shared_folder
from dstrain.run_folder.reading import open_ordinary, read_bytes

SEAL = "sealed.json"
_BLOCK_BYTES = 1 << 20
_ANY_SIZE = 1 << 62


@contextmanager
def sealed_folder(path: Path) -> Iterator[Path]:
    """An empty folder that becomes `path` with its seal, as `shared_folder`.

    Raises:
        UserError: the disk is full.
    """
    try:
        with shared_folder(path) as draft:
            yield draft
            hashes = {name: _hash(draft / name) for name in _names(draft)}
            create_file(draft / SEAL, json.dumps(hashes, indent=1).encode())
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise UserError(
            f"machine.cache_dir: {path} cannot be written ({error.strerror}): free some space, or set machine.cache_dir to a "
            "folder with room"
        ) from error


def check_if_made(path: Path) -> None:
    """Check a folder of the cache against its seal, which reads it in full; does nothing if there is no such folder.

    Raises:
        UserError: a file is missing, another, a link, or not what was written; or there is no seal.
    """
    if not os.path.lexists(path):
        return
    hashes = _read_seal(path)
    if changed := sorted(set(_names(path)) ^ hashes.keys()):
        raise _not_as_made(path / changed[0], folder=path)
    for name, expected in hashes.items():
        if _hash(path / name) != expected:
            raise _not_as_made(path / name, folder=path)


def copy_sealed(path: Path, *, to: Path) -> None:
    """Copy the files of a folder of the cache, without its seal, into an existing folder; raises as `check_if_made`."""
    check_if_made(path)
    for name, expected in _read_seal(path).items():
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as copy:
            # again, since it is the copy that is used
            if _hash(path / name, copy=copy) != expected:
                raise _not_as_made(path / name, folder=path)


def _names(folder: Path) -> Iterator[str]:
    """Everything in a folder but sub-folders and the seal, relative to it."""
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *links):
            if (path := Path(parent, name)) != folder / SEAL:
                yield path.relative_to(folder).as_posix()


def _hash(path: Path, *, copy: IO[bytes] | None = None) -> str | None:
    """The SHA-256 of an ordinary file, None for anything else; with `copy` the content is written there as well."""
    digest = hashlib.sha256()
    try:
        with open_ordinary(path, max_bytes=_ANY_SIZE) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                if copy is not None:
                    copy.write(block)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        return None
    return digest.hexdigest()


def _read_seal(folder: Path) -> dict[str, str]:
    try:
        hashes = json.loads(read_bytes(folder / SEAL))
    except (OSError, ValueError, RecursionError) as error:
        raise _not_as_made(folder / SEAL, folder=folder) from error
    if not isinstance(hashes, dict) or folder.is_symlink():
        raise _not_as_made(folder / SEAL, folder=folder)
    return hashes


def _not_as_made(path: Path, *, folder: Path) -> UserError:
    return UserError(
        f"{path}: not as it was written (missing, changed, added or a link), so the folder is not used: remove {folder} and "
        "start again, which makes it again"
    )
