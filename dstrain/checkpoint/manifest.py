"""What a checkpoint directory says of itself: its files with sizes and hashes. Reads and checks; knows no tensors."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST = "manifest.json"
FORMAT = 1
BLOCK_BYTES = 1 << 20
MAX_MANIFEST_BYTES = 64 << 20


class CheckpointError(ValueError):
    """A checkpoint that is not whole; the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a checkpoint."""

    path: str
    """Relative to the checkpoint directory."""
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The mark that a checkpoint is whole: written last."""

    step: int
    world_size: int
    recipe_hash: str
    recipe: dict[str, Any]
    """The recipe half of the configuration, so that a change can be named."""
    versions: dict[str, str]
    files: tuple[FileEntry, ...]
    format: int = FORMAT


def hash_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def describe_file(path: Path, *, directory: Path) -> FileEntry:
    """The manifest entry of a file as it lies on disk."""
    return FileEntry(path.relative_to(directory).as_posix(), path.stat().st_size, hash_file(path))


def save_manifest(manifest: Manifest, *, directory: Path) -> None:
    """Write and sync the manifest; the files it names must have been synced before."""
    with (directory / MANIFEST).open("w") as stream:
        json.dump(asdict(manifest), stream, indent=1, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())


def load_manifest(directory: Path) -> Manifest:
    """A checkpoint's manifest, checked in form but not against the files.

    Raises:
        CheckpointError: there is none, or it is malformed.
    """
    path = directory / MANIFEST
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise CheckpointError(f"{path}: larger than {MAX_MANIFEST_BYTES} bytes, so not a manifest")
        values = json.loads(path.read_bytes())
        # asked first: another format may have other keys
        if values["format"] != FORMAT:
            raise CheckpointError(f"{path}: format {values['format']!r}, this version reads {FORMAT}")
        files = tuple(_file_entry(**entry) for entry in values.pop("files"))
        return Manifest(files=files, **values)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; the save was not finished") from error
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: malformed ({type(error).__name__}: {error})") from error


def verify_checkpoint(directory: Path) -> Manifest:
    """The manifest of a checkpoint whose every file has the stated size and hash.

    Raises:
        CheckpointError: names the first file that is missing, has another size or another content.
    """
    manifest = load_manifest(directory)
    for entry in manifest.files:
        _verify_file(entry, directory=directory)
    return manifest


def _file_entry(path: str, size: int, sha256: str) -> FileEntry:
    if not (isinstance(path, str) and isinstance(size, int) and isinstance(sha256, str)):
        raise TypeError(f"no file entry: {path!r}, {size!r}, {sha256!r}")
    return FileEntry(path, size, sha256)


def _verify_file(entry: FileEntry, *, directory: Path) -> None:
    relative = PurePosixPath(entry.path)
    path = directory / relative
    leaves = relative.is_absolute() or ".." in relative.parts or not entry.path.isprintable()
    # a link anywhere on the way may lead outside
    if leaves or os.path.realpath(path) != os.path.join(os.path.realpath(directory), relative):
        raise CheckpointError(f"{directory / MANIFEST}: the path {entry.path!r} leaves the checkpoint directory")
    if not path.is_file():
        raise CheckpointError(f"{path}: missing")
    try:
        size = path.stat().st_size
        sha256 = hash_file(path) if size == entry.size else ""
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if size != entry.size:
        raise CheckpointError(f"{path}: {size} bytes, the manifest says {entry.size}")
    if sha256 != entry.sha256:
        raise CheckpointError(f"{path}: its content does not match the manifest's sha256")
