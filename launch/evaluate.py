"""Scores models: srun python (or torchrun, python) launch/evaluate.py RUN [--pending | --step N] [key=value ...]."""

from dstrain.cluster.console import run_program
from dstrain.evaluate import main

if __name__ == "__main__":
    run_program(main)
