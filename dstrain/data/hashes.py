"""Hashes of data files, kept from start to start as long as a file is unchanged. Knows nothing of what the files hold.

A file counts as unchanged while its size, inode, time of modification and time of change are those of the time at which it was
hashed. The time of change (ctime) cannot be set by a program, so it also shows a copy that kept its old time of modification.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dstrain.run_folder.atomic import write_file

BLOCK_BYTES = 1 << 20

SETTLED_SECONDS = 60.0
"""A hash is kept only of a file that has not changed for so long: times of files are as coarse as two seconds, so that a second
change soon after the first may leave the same time. A minute also allows for a file server whose clock is behind."""


def hash_file(path: Path, *, beat: Callable[[], None] = lambda: None) -> str:
    """sha256 of a file's content, in hexadecimal; `beat` is called after every block."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            beat()
    return digest.hexdigest()


def hash_once(
    path: Path, *, folder: Path, beat: Callable[[], None] = lambda: None, now: Callable[[], float] = time.time
) -> str:
    """As `hash_file`, but an unchanged file is not read again: its hash is kept in `folder`."""
    place = path.resolve()
    kept = folder / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.json"
    started = now()
    before = {"path": str(place), **_stamp(path)}
    if (known := _read_kept(kept, stamp=before)) is not None:
        return known
    found = hash_file(path, beat=beat)
    if _is_settled(before, now=started) and before.items() >= _stamp(path).items():
        with suppress(OSError):  # it only saves time
            write_file(kept, json.dumps({**before, "sha256": found}))
    return found


def _stamp(path: Path) -> dict[str, int]:
    # of an open file: opening makes a network file system ask its server, while `stat` may answer from a cache
    with path.open("rb", buffering=0) as file:
        found = os.fstat(file.fileno())
    return {
        "size": found.st_size,
        "modified_ns": found.st_mtime_ns,
        "changed_ns": found.st_ctime_ns,
        "inode": found.st_ino,  # without the device, whose number differs between hosts that mount the same file system
    }


def _is_settled(stamp: dict[str, Any], *, now: float) -> bool:
    # a time of 0 or of the future is none: some file systems have no times
    times = (stamp["modified_ns"], stamp["changed_ns"])
    return all(0 < each < (now - SETTLED_SECONDS) * 1e9 for each in times)


def _read_kept(path: Path, *, stamp: dict[str, Any]) -> str | None:
    try:
        kept = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    digest = kept.pop("sha256", None) if isinstance(kept, dict) else None
    return digest if kept == stamp and isinstance(digest, str) and len(digest) == 64 else None
