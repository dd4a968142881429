"""What slurm/sweep.sbatch asks: `python -m dstrain.sweep FILE --member N [key=value ...]` prints a member's arguments."""

import sys

from dstrain.sweep.members import main

if __name__ == "__main__":
    sys.exit(main())
