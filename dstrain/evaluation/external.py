"""Scores by other programs, in environments of their own: they read the texts of an evaluation and print a number.

A program runs beside the training and is looked after from its steps, so that it never holds one up. It knows nothing of the run:
neither the launcher's variables nor its Python path.
"""

import logging
import math
import os
import re
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from dstrain.cluster.environment import without_launcher
from dstrain.config.arguments import shell_command
from dstrain.config.evaluation import HYPOTHESES, REFERENCES, SOURCES, External
from dstrain.errors import UserError
from dstrain.run_folder.external import ExternalScore, add_external, read_external
from dstrain.run_folder.layout import RunFolder
from dstrain.run_folder.scores import ScoredTexts, reference_files, write_texts

POLL_SECONDS = 0.2
MAX_READ = 64 * 1024
"""Bytes of the end of what a program has printed that are read."""
MAX_SHOWN = 500
PYTHON_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV")
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w.])")

log = logging.getLogger(__name__)


class ScorerFailed(UserError):
    """A program could not be started, failed, took too long, or printed no number."""


class Scorer:
    """A program that is computing a score of the texts in a folder.

    Raises ScorerFailed if it cannot be started.
    """

    def __init__(self, name: str, external: External, *, texts: Path) -> None:
        self._name, self._external = name, external
        self._printed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        environment = without_launcher(os.environ)
        for variable in PYTHON_VARIABLES:
            environment.pop(variable, None)
        words = build_command(external.command, texts=texts)
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=self._errors,
                env=environment,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise ScorerFailed(
                f"evaluation.external.{name}: `{words[0]}` cannot be started ({error}): name the program by its full path"
            ) from error
        self._deadline = time.monotonic() + 60 * external.timeout_minutes

    def poll(self) -> float | None:
        """The score; None while the program is running. Raises ScorerFailed if there is none."""
        code = self._process.poll()
        if code is None and time.monotonic() < self._deadline:
            return None
        if code is None:
            self.end()
            raise self._failure(f"took longer than timeout_minutes, {self._external.timeout_minutes:g}")
        if code != 0:
            cause = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise self._failure(cause)
        lines = _tail(self._printed).split("\n")
        numbers = _NUMBER.findall(next((line for line in reversed(lines) if line.strip()), ""))
        value = float(numbers[-1]) if numbers else math.nan
        if not math.isfinite(value):
            raise self._failure("printed no number in its last line")
        return value

    def end(self) -> None:
        """End the program, with all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _failure(self, what: str) -> ScorerFailed:
        said = _tail(self._errors).strip() or _tail(self._printed).strip() or "nothing"
        shown = said if len(said) <= MAX_SHOWN else f"…{said[-MAX_SHOWN:]}"
        command = shell_command(self._external.command)
        return ScorerFailed(
            f"evaluation.external.{self._name}: `{command}` {what}; it printed: {shown}\n"
            "Correct it, or leave it out of evaluation.external"
        )


def build_command(command: tuple[str, ...], *, texts: Path) -> list[str]:
    """The words of a command with the files of a folder in place of `{sources}`, `{hypotheses}` and `{references}`."""
    folder = texts.absolute()
    references = [str(path) for path in reference_files(folder)]
    files = {
        SOURCES: str(folder / "sources.txt"),
        HYPOTHESES: str(folder / "hypotheses.txt"),
        REFERENCES: references[0],
    }
    words = []
    for word in command:
        if word == REFERENCES:
            words += references
            continue
        for name, file in files.items():
            word = word.replace(name, file)  # noqa: PLW2901
        words.append(word)
    return words


def _tail(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_READ))
    return file.read().decode("utf-8", errors="replace")


class ExternalScores:
    """Has the texts of evaluations scored by the programs of a recipe, one after the other."""

    def __init__(self, programs: Mapping[str, External], *, folder: RunFolder) -> None:
        self._programs, self._folder = programs, folder
        self._waiting: deque[tuple[int, str]] = deque()
        self._running: tuple[int, str, Scorer] | None = None
        self._warned: set[str] = set()
        self._is_ending = False

    def add(self, step: int, *, is_last: bool = False) -> None:
        """Let the evaluation of a step be scored by programs that have not scored it yet; `is_last`: by those of the end too."""
        known = read_external(self._folder, step=step)
        queued = [*self._waiting, *([self._running[:2]] if self._running else [])]
        for name, external in self._programs.items():
            is_wanted = is_last or external.every == "evaluation"
            if is_wanted and name not in known and (step, name) not in queued:
                self._waiting.append((step, name))

    def poll(self) -> bool:
        """Take up what has ended and start what is next; returns whether there is more to do. Never raises."""
        if self._running is not None:
            step, name, scorer = self._running
            try:
                value = scorer.poll()
                if value is None:
                    return True
                command = shell_command(self._programs[name].command)
                add_external(self._folder, step=step, name=name, score=ExternalScore(value, command))
                log.info("evaluation at step %d: %s %.4f", step, name, value)
            except (ScorerFailed, OSError) as error:
                self._warn(name, step=step, error=error)
            self._running = None
        while self._waiting and self._running is None:
            step, name = self._waiting.popleft()
            if self._is_ending and name in self._warned:
                continue
            try:
                self._running = step, name, Scorer(name, self._programs[name], texts=self._folder.hypotheses(step))
            except (ScorerFailed, OSError) as error:
                self._warn(name, step=step, error=error)
        return self._running is not None

    def finish(self, *, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Wait until all is done, or until `should_stop`. A program that fails from now on is not started again."""
        self._warned.clear()
        self._is_ending = True
        while self.poll():
            time.sleep(POLL_SECONDS)
            if should_stop():
                self.close()

    def close(self) -> None:
        """End what is running; what has no score is scored at the next start or at the end."""
        if self._running is not None:
            self._running[2].end()
        self._waiting.clear()
        self._running = None

    def _warn(self, name: str, *, step: int, error: Exception) -> None:
        if name not in self._warned:
            self._warned.add(name)
            log.warning("evaluation at step %d has no score `%s`: %s (logged once)", step, name, error)


def rehearse_external(programs: Mapping[str, External], *, texts: ScoredTexts, beat: Callable[[], object]) -> None:
    """Score a few rows by every program, with `beat` called meanwhile. Raises ScorerFailed for one that gives no score."""
    with tempfile.TemporaryDirectory(prefix="dstrain-") as folder:
        write_texts(texts, folder=Path(folder))
        for name, external in programs.items():
            scorer = Scorer(name, external, texts=Path(folder))
            try:
                while scorer.poll() is None:
                    time.sleep(POLL_SECONDS)
                    beat()
            finally:
                scorer.end()
