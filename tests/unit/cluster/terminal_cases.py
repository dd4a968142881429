"""Starts programs on a pseudo-terminal, as a user's shell does, and reads what they print."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

CONTROLLED = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)
"""Makes the terminal the one that controls the program, so that what is typed can be Ctrl-C."""


def run_on_terminal(
    command: Sequence[str],
    *,
    columns: int = 80,
    lines: int = 24,
    term: str | None = "xterm-256color",
    variables: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    typed: bytes = b"",
    wait_for: str = "",
) -> tuple[int, str]:
    """The exit code of a command, and all that it printed on the terminal; `typed` is sent once it has printed `wait_for`."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {
        key: value for key, value in os.environ.items() if key not in ("TERM", "COLUMNS", "LINES", "NO_COLOR")
    }
    environment |= {} if term is None else {"TERM": term}
    process = subprocess.Popen(
        [sys.executable, "-c", CONTROLLED, *command],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment | dict(variables or {}),
        cwd=cwd,
        start_new_session=True,
    )
    os.close(slave)
    printed = b""
    with suppress(OSError):  # the terminal ends with the last process that has it open
        while block := os.read(master, 65536):
            printed += block
            if typed and wait_for.encode() in printed:
                os.write(master, typed)
                typed = b""
    os.close(master)
    return process.wait(), printed.decode()


def screen_of(printed: str) -> list[str]:
    """The lines that a terminal shows in the end: of what is drawn again the last."""
    lines = [""]
    column = 0
    place = 0
    while place < len(printed):
        char = printed[place]
        place += 1
        if char == "\r":
            column = 0
        elif char == "\n":
            lines.append("")
        elif printed.startswith("\x1b[K", place - 1):
            lines[-1] = lines[-1][:column]
            place += 2
        else:
            assert char != "\x1b", f"an escape that is not known: {printed[place : place + 10]!r}"
            lines[-1] = lines[-1][:column] + char + lines[-1][column + 1 :]
            column += 1
    return lines
