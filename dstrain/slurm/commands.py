"""What the helpers of the batch scripts share: running Slurm's commands, messages in the job's log, timestamps."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from dstrain.cluster.console import say

COMMAND_SECONDS = 60.0

Run = Callable[[Sequence[str]], tuple[int, str]]
"""Runs a command; returns its exit code and its output, or the reason why it could not be run."""


def run_command(command: Sequence[str]) -> tuple[int, str]:
    """Run a Slurm command; returns its exit code with its standard output, or with its standard error if it failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def without_slurm(environment: Mapping[str, str]) -> list[str]:
    """The beginning of a command that sees no options of the calling job: sbatch and srun read them from its variables."""
    return [
        "env",
        *(f"--unset={key}" for key in sorted(environment) if key.startswith("SLURM_") and key != "SLURM_CONF"),
    ]


def print_message(message: str) -> None:
    """Print a line to the log of the batch job."""
    say(f"dstrain: {message}", err=True)


def timestamp() -> str:
    """The current time in ISO format, UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
