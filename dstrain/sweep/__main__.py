"""Prints the arguments of a member for slurm/sweep.sbatch: `python -m dstrain.sweep FILE --member N [key=value ...]`."""

import sys

from dstrain.sweep.members import main

if __name__ == "__main__":
    sys.exit(main())
