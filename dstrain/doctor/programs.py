"""Runs a program for a limited time, whatever it does: a process that waits for a driver cannot always be killed."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

SECONDS = 20.0
"""How long a program may take that only says something of itself."""
KILL_SECONDS = 2.0
"""How long a killed process may take to go before it is left alone."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a program."""

    code: int | None
    """Its exit code, negative for a signal; None if it did not end in time."""
    out: str = ""
    """Its standard output, as far as it came."""
    err: str = ""
    """Its standard error, or why it could not be started."""

    @property
    def last_error(self) -> str:
        """The last line that says what went wrong, for a message."""
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.code}"


class Run(Protocol):
    """Runs a program; None if there is none of this name."""

    def __call__(self, command: Sequence[str], *, seconds: float = SECONDS) -> Done | None: ...


def run(
    command: Sequence[str], *, seconds: float = SECONDS, environment: Mapping[str, str] | None = None
) -> Done | None:
    """Run a program for at most so many seconds; None if there is none of this name."""
    # into files, because reading the end of a pipe would wait for the process
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, start_new_session=True
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            return Done(126, err=error.strerror or str(error))
        code = None
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(KILL_SECONDS)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return Done(code, *texts)
