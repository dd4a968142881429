"""What the exit code of a process means."""

EXIT_PREEMPTED = 85
"""Exit code: saved, start me again."""
EXIT_INTERRUPTED = 130
"""Exit code: ended at once by Ctrl-C, as shells give it."""


EXIT_USAGE = 2
