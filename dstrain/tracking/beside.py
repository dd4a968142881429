"""Starts the programs that show a run in trackers, and ends them. A tracker never stops or holds up a run."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dstrain.cluster.environment import without_launcher
from dstrain.cluster.processes import end_with_descendants
from dstrain.config.arguments import shell_command

PROGRAM = ("-m", "dstrain.tracking.follow")

END_SECONDS = 20.0
"""Seconds that a run which has ended waits for its trackers."""
HURRY_SECONDS = 5.0
"""Seconds that a run waits for them which must make room or has failed."""

log = logging.getLogger(__name__)


class Followers:
    """One process for each tracker of a run. Nothing here raises, and nothing but `close` takes time."""

    def __init__(self, names: Sequence[str], *, run_dir: Path) -> None:
        """Start the processes; the files of the run folder that they read exist already."""
        self._run_dir = run_dir
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # no rank, and nothing on a GPU
        environment = {**without_launcher(os.environ), "CUDA_VISIBLE_DEVICES": ""}
        for name in names:
            command = [sys.executable, *PROGRAM, str(run_dir), name]
            try:
                self._processes[name] = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                log.warning("%s: its process cannot be started (%s); %s", name, error, self._way_out(name))

    def close(self, *, seconds: float) -> None:
        """Let the processes send what is left, for at most so many seconds over all, and end them."""
        deadline = time.monotonic() + seconds
        for process in self._processes.values():
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.close()
        for name, process in self._processes.items():
            code = _wait(process, until=deadline)
            if code != 0:
                reason = "has not received everything in time" if code is None else "could not be sent everything"
                log.warning("%s %s; %s", name, reason, self._way_out(name))
        self._processes.clear()

    def _way_out(self, name: str) -> str:
        return f"to send the rest: {shell_command(['dstrain', 'track', self._run_dir, '--to', name])}"


def _wait(process: subprocess.Popen[bytes], *, until: float) -> int | None:
    """The exit code of a process; None if it had to be ended, with all that it has started."""
    try:
        return process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        end_with_descendants(process.pid)
        process.wait()
        return None
