"""The way out to the terminal: what is said and logged, without what could control it, and without the noise of libraries.

Names, cells and keys come from strangers. They are cleaned here, once, rather than in each message.
"""

import atexit
import logging
import math
import os
import re
import shutil
import sys
import threading
import traceback
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn, TextIO

from dstrain.cluster.environment import ProcessInfo

log = logging.getLogger("dstrain")


MAX_NAME = 300
"""Most characters of a path in an error of the operating system."""
COLUMNS = 80
"""Width of a terminal that does not tell its own."""
ERASE = "\r\x1b[K"
"""What takes the line of the cursor off a terminal."""
SEPARATORS = (re.compile(r", |; | \(|(?<=\S)  (?=\w)"), re.compile(" "))
"""What stands between the parts of a line, which does not include the gaps of a bar, and between its words."""
SHOWN = frozenset("\n\t\u200c\u200d")
"""Shown although they are not printable: the joiners, which Persian and Hindi are written with, only shape letters."""


def cleaned(text: str) -> str:
    r"""`text` with escapes, as `\x1b`, for all that is not drawn: control, formatting and bidirectional characters."""
    return "".join(
        char if char.isprintable() or char in SHOWN or unicodedata.category(char) == "Zs" else _escaped(char)
        for char in text
    )


class _Line:
    """The line at the bottom of the terminal that is drawn again and again; empty if there is none."""

    def __init__(self) -> None:
        self.text = ""
        self.lock = threading.RLock()  # a signal may log while its thread draws


_line = _Line()


def say(text: object, *, err: bool = False) -> None:
    """Print a text, cleaned, on standard output or standard error; nowhere once no one reads it, as after `| head`."""
    stream = sys.stderr if err else sys.stdout
    with _above_line():
        try:
            print(cleaned(str(text)), file=stream, flush=True)
        except BrokenPipeError:
            let_go_of(stream)


def let_go_of(stream: TextIO) -> None:
    """Send what is still to be written nowhere, since no one reads it: flushing it at exit would be an error again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def say_from_signal(text: str) -> None:
    """Print a line on standard error from a handler of signals, which may have interrupted a print."""
    os.write(2, f"{ERASE if _line.text else ''}{text}\n".encode())


def can_redraw(stream: TextIO | None = None) -> bool:
    """Whether a stream, standard error by default, is a terminal on which a line can be drawn again; a `dumb` one is not."""
    return (stream or sys.stderr).isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def redraw(text: str) -> None:
    """Show a text, cleaned and cut to one line, in the place of the last one that was shown so; an empty text removes it.

    Standard error must be a terminal (`can_redraw`). What is said or logged meanwhile comes above that line.
    """
    with _line.lock:
        if text or _line.text:
            one = cleaned(" ".join(text.split("\n")).replace("\t", " "))
            _line.text = fitted(one, columns=terminal_columns(sys.stderr) - 1)
            print(f"{ERASE}{_line.text}", end="", file=sys.stderr, flush=True)


class Screen:
    """A text of several lines on the terminal of standard output, in the place of the one before it."""

    def __init__(self) -> None:
        self._num_lines = 0

    def show(self, text: str) -> None:
        """Draw as much of a text, cleaned, as fits."""
        columns, height = shutil.get_terminal_size()
        lines = [fitted(line, columns=columns - 1) for line in cleaned(text).split("\n")[: max(1, height - 1)]]
        self.clear()
        print(*lines, sep="\n", flush=True)
        self._num_lines = len(lines)

    def clear(self) -> None:
        """Remove what was drawn."""
        if self._num_lines:
            print(f"\x1b[{self._num_lines}A\r\x1b[J", end="", flush=True)
        self._num_lines = 0


@contextmanager
def _above_line() -> Iterator[None]:
    with _line.lock:
        if _line.text:
            print(ERASE, end="", file=sys.stderr, flush=True)
        yield
        if _line.text:
            print(_line.text, end="", file=sys.stderr, flush=True)


def terminal_columns(stream: TextIO) -> int:
    """The width of the terminal behind a stream."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or COLUMNS
    except (OSError, ValueError):
        return COLUMNS


def fitted(text: str, *, columns: int) -> str:
    """The beginning of a line that takes at most so many columns; letters of East Asia take two.

    A part, or else a word, that does not fit is left out whole, unless it is more than half of what fits.
    """
    width = 0
    for place, char in enumerate(text):
        width += 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1
        if width > columns:
            return text[: _last_end(text, place)].rstrip()
    return text


def _last_end(text: str, place: int) -> int:
    for separator in SEPARATORS:
        ends = [found.start() for found in separator.finditer(text) if found.start() <= place]
        if ends and 2 * ends[-1] >= place:
            return ends[-1]
    return place


def duration(seconds: float) -> str:
    """A time span in its two largest units: `3 h 12 min`."""
    if not math.isfinite(seconds):
        return "?"
    whole = max(0, round(seconds))
    for size, unit, smaller_size, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size} {unit} {rest} {smaller}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def describe(error: Exception) -> str:
    """The message of an error; of the operating system's the file and the reason, without a number."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
        return f"{name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + '…'}: {error.strerror}"
    return str(error)


def clean_tracebacks() -> None:
    """Clean the tracebacks of errors that nothing catches, which quote names as well."""

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        say("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"), err=True)

    sys.excepthook = show


class _Cleaned(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return cleaned(super().format(record))


class _AboveLine(logging.StreamHandler[TextIO]):
    def emit(self, record: logging.LogRecord) -> None:
        with _above_line():
            super().emit(record)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def quiet_libraries(process: ProcessInfo) -> None:
    """Set up logging and the environment variables that libraries read when they are imported; called before that."""
    clean_tracebacks()
    set_up_log(rank=process.rank)
    logging.captureWarnings(True)
    quiet_deepspeed()
    # torch warns about deprecated functions that DeepSpeed calls
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed.*")
    # so that DeepSpeed finds the ninja beside this interpreter even if the environment is not activated
    os.environ["PATH"] = f"{_own_tools()}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if process.rank != 0 or not can_redraw():
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # they would fill a log with carriage returns


def set_up_log(*, rank: int = 0) -> None:
    """Log to standard error, cleaned: what rank 0 does, and warnings of the others with their number."""
    handler = _AboveLine(sys.stderr)
    handler.setFormatter(_Cleaned("%(message)s" if rank == 0 else f"rank {rank}: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    log.setLevel(logging.INFO if rank == 0 else logging.WARNING)


def run_program(main: Callable[[], int]) -> NoReturn:
    """Call a program's `main` and exit with its code, without taking torch and DeepSpeed apart, which takes a second.

    What has to be done at exit is done: by handlers of `atexit` that were registered inside, and by callers of this function.
    """
    codes: list[int] = []
    atexit.register(lambda: _end(codes[0]) if codes else None)  # the last handler, since the first one to be registered
    codes.append(main())
    sys.exit(codes[0])


def _end(code: int) -> None:
    with suppress(OSError, ValueError):  # no one reads the output any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def own_program() -> list[str]:
    """The words that start dstrain's commands in the shell that this process was started from, which `quiet_libraries` has not
    shown the interpreter's own folder."""
    path = os.environ.get("PATH", "").removeprefix(f"{_own_tools()}{os.pathsep}")
    if shutil.which("dstrain", path=path):
        return ["dstrain"]
    near = os.path.relpath(sys.executable)
    return [near if not near.startswith("..") else sys.executable, "-m", "dstrain"]


def _own_tools() -> str:
    return str(Path(sys.executable).parent)


def quiet_deepspeed() -> None:
    """Keep back DeepSpeed's warnings, such as that of every import about a missing GPU; called before it is imported."""
    logging.getLogger("DeepSpeed").addFilter(lambda entry: entry.levelno >= logging.ERROR)


def hide_gpus() -> None:
    """Make torch and DeepSpeed, which are imported later, use the CPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["DS_ACCELERATOR"] = "cpu"
