"""Scores models: srun python (or torchrun, python) launch/evaluate.py RUN [--pending | --step N] [key=value ...]."""

import sys

from dstrain.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
