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
        files = tuple(FileEntry(**entry) for entry in values.pop("files"))
        manifest = Manifest(files=files, **values)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}; the save was not finished") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: malformed ({error})") from error
    if manifest.format != FORMAT:
        raise CheckpointError(f"{path}: format {manifest.format}, this version reads {FORMAT}")
    return manifest


def verify_checkpoint(directory: Path) -> Manifest:
    """The manifest of a checkpoint whose every file has the stated size and hash.

    Raises:
        CheckpointError: names the first file that is missing, has another size or another content.
    """
    manifest = load_manifest(directory)
    for entry in manifest.files:
        _verify_file(entry, directory=directory)
    return manifest


def _verify_file(entry: FileEntry, *, directory: Path) -> None:
    relative = PurePosixPath(entry.path)
    path = directory / relative
    if relative.is_absolute() or ".." in relative.parts or path.is_symlink():
        raise CheckpointError(f"{directory / MANIFEST}: the path {entry.path!r} leaves the checkpoint directory")
    if not path.is_file():
        raise CheckpointError(f"{path}: missing")
    size = path.stat().st_size
    if size != entry.size:
        raise CheckpointError(f"{path}: {size} bytes, the manifest says {entry.size}")
    if hash_file(path) != entry.sha256:
        raise CheckpointError(f"{path}: its content does not match the manifest's sha256")
