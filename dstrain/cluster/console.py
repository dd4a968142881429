"""The way out to the terminal: what is said and logged, without what could control it, and without the noise of libraries.

Names, cells and keys come from strangers. They are cleaned here, once, rather than in each message.
"""

import atexit
import logging
import os
import sys
import traceback
import unicodedata
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn, TextIO

from dstrain.cluster.environment import ProcessInfo

log = logging.getLogger("dstrain")


MAX_NAME = 300
"""Most characters of a path in an error of the operating system."""
SHOWN = frozenset("\n\t\u200c\u200d")
"""Shown although they are not printable: the joiners, which Persian and Hindi are written with, only shape letters."""


def cleaned(text: str) -> str:
    r"""`text` with escapes, as `\x1b`, for all that is not drawn: control, formatting and bidirectional characters."""
    return "".join(
        char if char.isprintable() or char in SHOWN or unicodedata.category(char) == "Zs" else _escaped(char)
        for char in text
    )


def say(text: object, *, err: bool = False) -> None:
    """Print a text, cleaned, on standard output or standard error; nowhere once no one reads it, as after `| head`."""
    stream = sys.stderr if err else sys.stdout
    try:
        print(cleaned(str(text)), file=stream, flush=True)
    except BrokenPipeError:
        let_go_of(stream)


def let_go_of(stream: TextIO) -> None:
    """Send what is still to be written nowhere, since no one reads it: flushing it at exit would be an error again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def redraw(text: str) -> None:
    """Show a text, cleaned, in the place of the last one that was shown so, on standard error, which is a terminal."""
    print(f"\r\x1b[K{cleaned(text)}", end="", file=sys.stderr, flush=True)


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


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()


def quiet_libraries(process: ProcessInfo) -> None:
    """Set up logging and the environment variables that libraries read when they are imported; called before that."""
    clean_tracebacks()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Cleaned("%(message)s" if process.rank == 0 else f"rank {process.rank}: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.captureWarnings(True)
    log.setLevel(logging.INFO if process.rank == 0 else logging.WARNING)
    quiet_deepspeed()
    # torch warns about deprecated functions that DeepSpeed calls
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed.*")
    # so that DeepSpeed finds the ninja beside this interpreter even if the environment is not activated
    tools = str(Path(sys.executable).parent)
    os.environ["PATH"] = f"{tools}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


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


def quiet_deepspeed() -> None:
    """Keep back DeepSpeed's warnings, such as that of every import about a missing GPU; called before it is imported."""
    logging.getLogger("DeepSpeed").addFilter(lambda entry: entry.levelno >= logging.ERROR)


def hide_gpus() -> None:
    """Make torch and DeepSpeed, which are imported later, use the CPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["DS_ACCELERATOR"] = "cpu"
