"""Scores models: srun python launch/evaluate.py RUN [--pending | --step N] [key=value ...]; so do torchrun and python."""

import sys

from dstrain.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
