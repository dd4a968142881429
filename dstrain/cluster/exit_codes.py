"""The exit codes of dstrain's programs. 0 is success and 1 is any other failure."""

EXIT_USAGE = 2
"""The command line, the recipe or the environment is wrong."""
EXIT_PREEMPTED = 85
"""The run is not finished and should be started again: it saved a checkpoint and stopped, or it lost a rank."""
EXIT_INTERRUPTED = 130
"""Interrupted by Ctrl-C; the code that shells use."""
