"""The manifest of a checkpoint: its files with sizes and hashes. Writes, reads and checks it; knows no tensors.

The files may be from an untrusted source: sizes are checked before anything is read, paths cannot leave their directory,
and anything malformed raises a CheckpointError.
"""

import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, FailFast, Field, TypeAdapter, ValidationError

from dstrain.errors import UserError
from dstrain.run_folder.atomic import write_file

MANIFEST = "manifest.json"
FORMAT = 2
BLOCK_BYTES = 1 << 20
MAX_MANIFEST_BYTES = 16 << 20
"""Four times the manifest of 10,000 ranks."""
MAX_KEYS = 1000
"""Most versions or scores in a manifest."""
MAX_FAULTS = 100
"""With more faults in one file they are only counted: describing the first needs about 1 kB of memory per fault."""
MAX_SHOWN = 200
"""Characters of a file's content shown in a message."""


def _check_few(value: Any) -> Any:
    # checked before the items: an error about each wrong item takes a hundred times its size
    if isinstance(value, dict) and len(value) > MAX_KEYS:
        raise ValueError(f"has {len(value)} keys, at most {MAX_KEYS} are allowed")
    return value


Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class CheckpointError(UserError):
    """A checkpoint that is not valid; the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a checkpoint."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    path: Annotated[str, Field(max_length=1024)]
    """Relative to the checkpoint directory."""
    size: Count
    """Bytes."""
    sha256: Sha256


@dataclass(frozen=True)
class Manifest:
    """The mark of a complete checkpoint: written last."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    step: Count
    lease: Count
    """Number of the writer's lease on the run folder; a later writer has a higher number."""
    world_size: Annotated[int, Field(ge=1)]
    recipe_hash: str
    recipe: dict[str, Any]
    """The recipe part of the configuration, so that an error can name a changed key."""
    versions: Annotated[dict[str, str], BeforeValidator(_check_few)]
    files: Annotated[tuple[FileEntry, ...], FailFast()]
    scores: Annotated[dict[str, float] | None, BeforeValidator(_check_few)] = None
    """Scores of the evaluation at this step; None if there was none."""
    content: Literal["full", "weights"] = "full"
    """A checkpoint of weights only can be exported, but not resumed from."""
    format: int = FORMAT


_MANIFEST = TypeAdapter(Manifest)


def hash_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def save_manifest(manifest: Manifest, *, directory: Path) -> None:
    """Write the manifest and sync it and its directory; the files it names must be synced already."""
    values = asdict(manifest)
    content = _dump(values | {"sha256": _own_hash(values)})
    write_file(directory / MANIFEST, content, durable=True)


def load_manifest(directory: Path) -> Manifest:
    """A checkpoint's manifest: its form and its own hash are checked, the files it names are not.

    Raises:
        CheckpointError: it is missing or malformed.
    """
    path = directory / MANIFEST
    try:
        manifest = _parse(read_bounded(path, max_bytes=MAX_MANIFEST_BYTES), path=path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: {error.strerror}; the save was not finished") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise CheckpointError(f"{path}: malformed ({describe_fault(error)})") from error
    except CheckpointError:
        raise
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: malformed ({type(error).__name__}: {shown(str(error))})") from error
    if len({entry.path for entry in manifest.files}) < len(manifest.files):
        raise CheckpointError(f"{path}: malformed (a file is named twice)")
    for entry in manifest.files:
        relative = PurePosixPath(entry.path)
        plain = str(relative) == entry.path and relative.name and entry.path.isprintable()
        if not plain or relative.is_absolute() or ".." in relative.parts:
            raise CheckpointError(_leaves(entry, directory=directory))
    return manifest


def verify_checkpoint(directory: Path) -> Manifest:
    """The manifest of a checkpoint, after checking size and hash of every file.

    Raises:
        CheckpointError: names the first file that is missing or has a different size or content.
    """
    manifest = load_manifest(directory)
    for entry in manifest.files:
        _verify_file(entry, directory=directory)
    return manifest


def read_bounded(path: Path, *, max_bytes: int) -> bytes:
    """A file's content, if it has at most `max_bytes` bytes.

    Raises:
        CheckpointError: it is larger, or not a regular file.
        OSError: it cannot be read.
    """
    status = path.lstat()  # not followed: a link may lead outside
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: not a regular file")
    if status.st_size > max_bytes:
        raise CheckpointError(f"{path}: larger than {max_bytes} bytes, the most that is accepted")
    return path.read_bytes()


def describe_fault(error: ValidationError) -> str:
    """The first fault of an untrusted file, as a short line that is safe to print."""
    if error.error_count() > MAX_FAULTS:
        return f"{error.error_count()} faults"
    fault = error.errors(include_url=False, include_input=False)[0]
    return shown(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}")


def shown(text: str) -> str:
    """A text from an untrusted file, shortened and without terminal control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_SHOWN])


def _parse(content: bytes, *, path: Path) -> Manifest:
    values = json.loads(content)
    own_hash = values.pop("sha256", None)
    # checked first: another format may have other keys
    if values.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {shown(repr(values.get('format')))}, this version reads {FORMAT}")
    if own_hash != _own_hash(values):
        raise CheckpointError(f"{path}: its content does not match its own sha256")
    # the parsed values hide some changes: 1e-5 and 1E-5 are equal, and of a repeated key only the last is kept
    if content != _dump(values | {"sha256": own_hash}):
        raise CheckpointError(f"{path}: its bytes are not those that were written")
    if unknown := values.keys() - {field.name for field in fields(Manifest)}:
        raise CheckpointError(f"{path}: malformed (unknown key {shown(min(unknown))!r})")
    return _MANIFEST.validate_json(json.dumps(values), strict=True)


def _dump(values: dict[str, Any]) -> bytes:
    return json.dumps(values, indent=1, sort_keys=True).encode()


def _own_hash(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _verify_file(entry: FileEntry, *, directory: Path) -> None:
    relative = PurePosixPath(entry.path)
    path = directory / relative
    # a link anywhere on the way may lead outside
    if os.path.realpath(path) != os.path.join(os.path.realpath(directory), relative):
        raise CheckpointError(_leaves(entry, directory=directory))
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: {'not a regular file' if path.exists() else 'missing'}")
        size = path.stat().st_size
        sha256 = hash_file(path) if size == entry.size else ""
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    if size != entry.size:
        raise CheckpointError(f"{path}: {size} bytes, the manifest says {entry.size}")
    if sha256 != entry.sha256:
        raise CheckpointError(f"{path}: its content does not match the manifest's sha256")


def _leaves(entry: FileEntry, *, directory: Path) -> str:
    return f"{directory / MANIFEST}: the path {entry.path!r} leaves the checkpoint directory"
