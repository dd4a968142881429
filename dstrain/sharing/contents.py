"""What of a model folder goes up to the Hub, what stays here, and what is refused. Reads the folder, sends nothing.

A folder is shared as it is, so everything in it is looked at: a key in a text cannot be taken back once it is public.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dstrain.config.local_paths import find_local_paths
from dstrain.config.secrets import holds_secret, holds_token, mask, sets_secret
from dstrain.errors import UserError
from dstrain.run_folder.layout import NAMES
from dstrain.run_folder.reading import open_ordinary

PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"})
"""Suffixes of files that may run code when they are loaded, and that no model folder of dstrain has."""
PICKLE_BEGINNINGS = (*(b"\x80" + bytes([protocol]) for protocol in range(2, 6)), b"PK\x03\x04")
"""Of pickles by themselves, and in an archive as torch writes them."""
SAFE = ".safetensors"
"""Suffix of files that begin with a size, which may look like those, and that hold no code."""
ROWS = frozenset({NAMES.scores.name, NAMES.all_hypotheses.name, NAMES.external.name})
"""Sub-folders with rows of the evaluation data, which may belong to others. That of an average has them."""
VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json"})
"""Files of pieces of words: some look like the beginning of a path, or like a key with a value."""
TEXT_BYTES = 8192
"""Bytes at the beginning of a file by which a text is told from other data."""
MAX_TEXT_BYTES = 1 << 30
MAX_SHOWN = 50
"""Most problems of one file that are listed one by one."""

Content = Path | bytes


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something in a folder must not go up: printed as `file:line: rule`."""

    path: Path
    rule: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.rule}" if self.line is None else f"{self.path}:{self.line}: {self.rule}"


@dataclass(frozen=True, slots=True)
class Contents:
    """The files to be sent, by their names there, and what stays here, with the reason."""

    files: Mapping[str, Content]
    left_out: Mapping[str, str]
    problems: tuple[Problem, ...]
    """Everything in the folder that must not go up; where there is any, nothing may be sent."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }


def collect(folder: Path, *, made: Mapping[str, bytes]) -> Contents:
    """The files of a model folder, with those that were `made` for the Hub in the place of files of the same name.

    Raises:
        UserError: the folder is a link.
    """
    if folder.is_symlink():
        raise UserError(f"{folder} is a link: put the folder itself in its place")
    files: dict[str, Content] = {}
    left_out: dict[str, str] = {}
    problems: list[Problem] = []
    for path in _walk(folder, left_out=left_out, top=folder):
        name = path.relative_to(folder).as_posix()
        if name in made:
            continue
        rule = _problem_of_file(path)
        if rule is not None:
            problems.append(Problem(path, rule))
        else:
            files[name] = path
    files = dict(sorted({**files, **made}.items()))
    problems += [problem for name in files for problem in _problems_of_text(name, files[name], folder=folder)]
    return Contents(files, left_out, tuple(problems))


def refuse(problems: Iterable[Problem]) -> None:
    """Raise UserError with the problems, file by file and a line each, if there are any."""
    by_file: dict[Path, list[Problem]] = {}
    for problem in problems:
        by_file.setdefault(problem.path, []).append(problem)
    if not by_file:
        return
    lines = ["nothing was sent, because this must not go up:"]
    for path, found in by_file.items():
        lines += map(str, sorted(found, key=lambda problem: problem.line or 0)[:MAX_SHOWN])
        lines += [f"{path}: and {len(found) - MAX_SHOWN} more"] if len(found) > MAX_SHOWN else []
    raise UserError("\n".join(lines))


def find_leaks(name: str, lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """(line, problem) for the keys, tokens and passwords of each line of a text, and for each path of this machine in it.

    A secret is not repeated in the problem.
    """
    is_vocabulary = name.rpartition("/")[2] in VOCABULARIES
    for number, line in enumerate(lines, start=1):
        if holds_token(line) or (not is_vocabulary and (holds_secret(line) or sets_secret(line))):
            yield number, "holds a key, a token or a password: remove it, and revoke it where it is valid"
        for path in [] if is_vocabulary else find_local_paths(mask(line)):
            yield number, f"names `{path}`, a path of this machine: remove it or shorten it"


def _walk(folder: Path, *, left_out: dict[str, str], top: Path) -> Iterator[Path]:
    """Everything in a folder but hidden files and rows of the evaluation data, and folders only if they are links."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = Path(entry.path)
        name = path.relative_to(top).as_posix()
        if entry.name.startswith(".") or ".tmp-" in entry.name:
            left_out[name] = "hidden, or left over"
        elif not entry.is_dir(follow_symlinks=False):
            yield path
        elif name in ROWS:
            left_out[f"{name}/"] = "rows of the evaluation data"
        else:
            yield from _walk(path, left_out=left_out, top=top)


def _problem_of_file(path: Path) -> str | None:
    if path.is_symlink():
        return "is a link, and none is followed: put the file itself in its place"
    if not stat.S_ISREG(path.lstat().st_mode):
        return "is no ordinary file: remove it"
    if path.suffix.lower() in PICKLES or (path.suffix != SAFE and _beginning(path).startswith(PICKLE_BEGINNINGS)):
        return "may be a pickle, which runs code when it is loaded: remove it; the weights are in .safetensors"
    return None


def _beginning(content: Content) -> bytes:
    if isinstance(content, bytes):
        return content[:TEXT_BYTES]
    with open_ordinary(content, max_bytes=1 << 60) as file:
        return file.read(TEXT_BYTES)


def _problems_of_text(name: str, content: Content, *, folder: Path) -> Iterator[Problem]:
    if b"\0" in _beginning(content):
        return
    for number, rule in find_leaks(name, _read_lines(content)):
        yield Problem(folder / name, rule, number)


def _read_lines(content: Content) -> Iterator[str]:
    if isinstance(content, bytes):
        yield from content.decode("utf-8", "replace").split("\n")
        return
    with open_ordinary(content, max_bytes=MAX_TEXT_BYTES) as file:
        for line in file:
            yield line.decode("utf-8", "replace")
