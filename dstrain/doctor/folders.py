"""The folders that a run writes to: room, kind of file system, what it can do, and its clock."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dstrain.doctor.finding import Finding, note, ok, problem

GB = 1e9
NO_ROOM, LITTLE_ROOM = 0.1 * GB, 5 * GB
NO_FILES, FEW_FILES = 100, 10_000
SKEW_SECONDS = 2.0
PASSING = ("tmpfs", "ramfs", "overlay")
"""File systems that are gone with the host or the container."""
NETWORK = ("nfs", "nfs4", "cifs", "smb3")

Use = Literal["output", "cache", "built"]
"""Places of the run folder and of a cache; where libraries build and keep what they built."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder to look at."""

    topic: str
    path: Path
    use: Use
    setting: str
    """What chooses another folder."""


@dataclass(frozen=True, slots=True)
class Folder:
    """What was found of a folder, or of the nearest one above it that exists."""

    path: Path
    kind: str
    """Of the file system, as in /proc/self/mountinfo."""
    free_bytes: int
    free_files: int | None
    """None where the file system makes as many as it needs."""
    error: str | None = None
    """Why nothing can be written."""
    has_links: bool = True
    """Whether a file can have two names, as the lease of a run needs."""
    skew: float = 0.0
    """By how many seconds the file system's clock is ahead of this host's."""


def standard_places(environment: Mapping[str, str], *, output: Path, cache: Path) -> list[Place]:
    """The folders of a run with this output and cache, and those of the libraries that it uses."""
    home = Path(environment.get("HOME") or "~").expanduser()
    user = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    hub = Path(environment.get("HF_HOME") or user / "huggingface")
    extensions = Path(environment.get("TORCH_EXTENSIONS_DIR") or user / "torch_extensions")
    triton = Path(environment.get("TRITON_CACHE_DIR") or home / ".triton")
    return [
        Place("output", output, "output", "output_dir"),
        Place("cache", cache, "cache", "machine.cache_dir"),
        Place("hub cache", hub, "cache", "the variable HF_HOME"),
        Place("extensions", extensions, "built", "the variable TORCH_EXTENSIONS_DIR"),
        Place("triton cache", triton, "built", "the variable TRITON_CACHE_DIR"),
        Place("temporary files", Path(tempfile.gettempdir()), "built", "the variable TMPDIR"),
    ]


def look_at_folder(
    path: Path, *, mounts: Path = Path("/proc/self/mountinfo"), clock: Callable[[], float] = time.time
) -> Folder:
    """The folder at `path`, tried with files in a temporary folder, which is removed; the folder itself is not made."""
    path = Path(os.path.abspath(path))
    at = next(each for each in (path, *path.parents) if each.exists())
    status = os.statvfs(at)
    found = Folder(
        at,
        kind=kind_of_mount(mounts.read_text() if mounts.exists() else "", path=at.resolve()),
        free_bytes=status.f_frsize * status.f_bavail,
        free_files=status.f_favail if status.f_files else None,
    )
    try:
        with tempfile.TemporaryDirectory(dir=at, prefix=".dstrain-doctor-") as trial:
            file, before = Path(trial) / "file", clock()
            written = _write(file)
            skew = written - min(max(written, before), clock())
            return replace(found, skew=skew, has_links=_can_link(file))
    except OSError as error:
        return replace(found, error=error.strerror or str(error))


def kind_of_mount(mounts: str, *, path: Path) -> str:
    """The kind of the file system of `path`, by the text of /proc/self/mountinfo."""
    best, kind = -1, "unknown"
    for line in mounts.splitlines():
        own, _, rest = line.partition(" - ")
        fields = own.split()
        if len(fields) < 5 or not rest:
            continue
        point = Path(fields[4].encode().decode("unicode_escape"))  # a space is written \040
        if path.is_relative_to(point) and len(point.parts) >= best:  # a later mount hides an earlier one
            best, kind = len(point.parts), rest.split()[0]
    return kind


def judge_folder(place: Place, folder: Folder) -> Iterator[Finding]:
    """What the folder is good for."""
    elsewhere = f"choose another folder with {place.setting}"
    failed = _what_fails(place, folder)
    if failed is not None:
        wrong = f"{folder.path}: {failed}"
        built = place.use == "built"  # a run needs none of those
        yield note(place.topic, wrong, way_out=elsewhere) if built else problem(place.topic, wrong, way_out=elsewhere)
        return
    files = "" if folder.free_files is None else f" and {folder.free_files:,} files"
    room = f"{place.path}: {folder.free_bytes / GB:.1f} GB{files} free, {folder.kind}"
    if _has_less(folder, num_bytes=NO_ROOM, num_files=NO_FILES):
        yield problem(place.topic, room, way_out=f"make room, or {elsewhere}")
    elif _has_less(folder, num_bytes=LITTLE_ROOM, num_files=FEW_FILES):
        yield note(place.topic, room, way_out=f"`dstrain plan RECIPE` says what a run needs: make room, or {elsewhere}")
    elif place.use == "output" and folder.kind in PASSING:
        yield note(
            place.topic, room, way_out=f"it is gone with the container or the host: mount a volume, or {elsewhere}"
        )
    elif place.use == "built" and folder.kind in NETWORK:
        way_out = f"libraries that build there on several hosts at once may wait for each other: {elsewhere}"
        yield note(place.topic, room, way_out=way_out)
    else:
        yield ok(place.topic, room)
    if place.use == "output" and abs(folder.skew) > SKEW_SECONDS:
        yield _describe_skew(folder.skew)


def _what_fails(place: Place, folder: Folder) -> str | None:
    if folder.error is not None:
        return f"nothing can be written ({folder.error})"
    if place.use == "output" and not folder.has_links:
        return f"a file cannot have a second name on this file system ({folder.kind}), which the lease of a run needs"
    return None


def _has_less(folder: Folder, *, num_bytes: float, num_files: int) -> bool:
    return folder.free_bytes < num_bytes or (folder.free_files is not None and folder.free_files < num_files)


def _describe_skew(skew: float) -> Finding:
    order = "ahead of" if skew > 0 else "behind"
    way_out = "let both keep time (NTP): leases compare times of the file system alone, `dstrain status` shows ages"
    return note("clock", f"the file system's is {abs(skew):.1f} s {order} this host's", way_out=way_out)


def _can_link(file: Path) -> bool:
    try:
        os.link(file, file.with_name("second"))
    except OSError:
        return False
    return True


def _write(path: Path) -> float:
    """Write a file; returns when it was written by the file system's clock, in seconds."""
    with path.open("xb") as file:
        file.write(b"\n")
        file.flush()
        os.fsync(file.fileno())  # NFS tells the server's time only then
        return os.fstat(file.fileno()).st_mtime
