"""The exit codes of dstrain's processes, each with one meaning. Slurm's batch scripts and launchers act on them."""

from collections.abc import Mapping

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_PREEMPTED = 85
EXIT_INTERRUPTED = 130

MEANINGS: Mapping[int, str] = {
    0: "Done. A command that checks something found it in order.",
    EXIT_FAILED: "Failed; starting again would not help. A command that checks something found it not in order.",
    EXIT_USAGE: "Not started: the command, the recipe or the environment is wrong.",
    EXIT_PREEMPTED: "Ended early with its work saved, or lost to a fault outside the run: start it again.",
    EXIT_INTERRUPTED: "Ended at once by Ctrl-C; 128 + SIGINT, as shells report it.",
}
"""Every code, and what it means."""
