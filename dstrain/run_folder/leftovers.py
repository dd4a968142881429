"""Drafts in folders that several processes share: whose they are, and removing those of writers that are gone.

A draft is named after its writer, so that on the writer's host everybody sees whether it still runs. A draft of another host
counts as left over once nothing in it has changed for a day.
"""

import hashlib
import re
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dstrain.cluster.processes import HIDDEN, process_start, this_process

ABANDONED_SECONDS = 24 * 3600.0

_DRAFT = re.compile(r".+\.tmp-(?:(?P<place>[0-9a-f]{8})-(?P<pid>[1-9][0-9]*)-(?P<start>-?[0-9]+)-)?[0-9a-f]+")


def draft_of(path: Path) -> Path:
    """The name under which this process makes what will be `path`; another one each time."""
    own = this_process()
    return path.with_name(f"{path.name}.tmp-{_place()}-{own.pid}-{own.process_start}-{secrets.token_hex(4)}")


def remove_leftovers(folder: Path, *, now: Callable[[], float] = time.time) -> None:
    """Remove the drafts in a folder whose writers are gone. Does nothing if there is no folder."""
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if _is_left_over(path, now=now()):
            with suppress(OSError):  # another process removes it too, or it belongs to another user
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def last_change(path: Path) -> float:
    """When a file, or a folder and what is directly in it, was last written to, in seconds since 1970."""
    found = path.lstat().st_mtime
    for each in path.iterdir() if path.is_dir() and not path.is_symlink() else ():
        with suppress(FileNotFoundError):
            found = max(found, each.lstat().st_mtime)
    return found


def _is_left_over(path: Path, *, now: float) -> bool:
    match = _DRAFT.fullmatch(path.name)
    if match is None:
        return False
    if match["place"] is not None and match["place"] == _place():
        return process_start(int(match["pid"])) not in (int(match["start"]), HIDDEN)
    with suppress(OSError):
        return now - last_change(path) > ABANDONED_SECONDS
    return False


def _place() -> str:
    """Where process ids are comparable: a host and one of its pid namespaces, since its boot."""
    own = this_process()
    return hashlib.sha256(f"{own.host} {own.pid_namespace}".encode()).hexdigest()[:8]
