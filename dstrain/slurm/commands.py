"""Slurm's commands run from the host of a batch script, and how a batch script hands over what it was given."""

import subprocess
from collections.abc import Callable, Sequence

COMMAND_SECONDS = 60.0

Run = Callable[[Sequence[str]], tuple[int, str]]
"""Runs a command; gives its exit code and what it printed, or why it did not run."""


def run_command(command: Sequence[str]) -> tuple[int, str]:
    """Run a command of Slurm's."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr
