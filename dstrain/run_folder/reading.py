"""Values from the files of a run folder; errors name the file and the line.

A run folder may come from a stranger: a file is read only if it is an ordinary one, and not too large.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EFBIG, ELOOP, ENXIO
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from dstrain.config.paths import path_problem
from dstrain.config.yaml_source import shown
from dstrain.errors import UserError
from dstrain.run_folder.atomic import no_ordinary_file
from dstrain.run_folder.layout import EXPORTED_STEP, RunFolder

MAX_RECORD_BYTES = 64 << 20
"""Most bytes of a record that is read as one value, and of a line of one that is read by line."""
MAX_ROWS_BYTES = 512 << 20
"""Most bytes of metrics.jsonl: a million rows."""


class RunFolderError(UserError):
    """A folder that is not a run folder, or a file in it that is damaged."""


def check_folder(run_dir: Path) -> None:
    """Raise RunFolderError where a run folder that a user named does not exist or cannot be reached."""
    if problem := path_problem(run_dir):
        raise RunFolderError(f"the run folder {problem}; found {shown(str(run_dir))}")
    try:
        is_folder = stat.S_ISDIR(os.stat(run_dir).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        is_folder = False
    except OSError as error:
        raise RunFolderError(f"{run_dir}: {error.strerror}") from error
    if not is_folder:
        raise RunFolderError(f"{run_dir}: no such folder; give the run folder that `output_dir` names")


def check_tokenizer(folder: RunFolder) -> None:
    """Raise RunFolderError where a run folder has lost the tokenizer that the run trains with."""
    if not folder.tokenizer.is_dir():
        raise RunFolderError(f"{folder.tokenizer} is missing: restore it, or start the run again, which writes it")


@contextmanager
def open_ordinary(path: Path, *, max_bytes: int = MAX_RECORD_BYTES) -> Iterator[IO[bytes]]:
    """A file to be read, if it is an ordinary one of at most `max_bytes` bytes.

    Raises:
        OSError: it is not, or it cannot be read.
    """
    try:
        # non-blocking, because opening a pipe of that name would wait forever
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in (ELOOP, ENXIO):
            raise
        raise no_ordinary_file(path) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise no_ordinary_file(path)
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > max_bytes:
            message = f"{status.st_size:,} bytes, and at most {max_bytes:,} are read: shorten or remove it"
            raise OSError(EFBIG, message, str(path))
        yield file


def read_bytes(path: Path, *, max_bytes: int = MAX_RECORD_BYTES) -> bytes:
    """The content of a file, as `open_ordinary`."""
    with open_ordinary(path, max_bytes=max_bytes) as file:
        return file.read()


def read_lines(path: Path, *, max_bytes: int = MAX_RECORD_BYTES) -> Iterator[bytes]:
    """The lines of a file without their ends, as `open_ordinary`; the last is what follows the last line break, often b""."""
    with open_ordinary(path, max_bytes=max_bytes) as file:
        line = b"\n"
        while line.endswith(b"\n"):
            line = file.readline(MAX_RECORD_BYTES)
            if len(line) == MAX_RECORD_BYTES:
                raise OSError(EFBIG, f"a line has more than {MAX_RECORD_BYTES:,} bytes: remove it", str(path))
            yield line.removesuffix(b"\n")


def parse_json(line: bytes, *, where: str) -> Any:
    """The value of a line; raises RunFolderError that names `where`."""
    try:
        return json.loads(line)
    except RecursionError as error:
        raise RunFolderError(f"{where}: JSON nested too deeply; correct or remove the line") from error
    except ValueError as error:
        raise RunFolderError(f"{where}: not JSON ({error}); found {line[:80]!r}; correct or remove the line") from error


def validate(adapter: TypeAdapter[Any], *, value: Any, where: str) -> Any:
    """`value` as the adapter's type; raises RunFolderError that names every fault and `where`."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault['msg']}" for fault in error.errors())
        raise RunFolderError(f"{where}: {faults}") from error


def read_exported_pairs(folder: Path) -> list[tuple[str | None, str | None]]:
    """Source and target language of each pair that a model folder was trained in, its default first; empty if it says none."""
    try:
        pairs = json.loads(read_bytes(folder / EXPORTED_STEP))["pairs"]
        found = [(source, target) for source, target in pairs]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return found if all(isinstance(code, str | None) for pair in found for code in pair) else []


def read_exported_step(folder: Path) -> int | None:
    """The step whose weights a model folder holds; None if the folder does not exist or does not name it."""
    try:
        return int(json.loads(read_bytes(folder / EXPORTED_STEP))["step"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
