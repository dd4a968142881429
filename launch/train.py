"""Trains: deepspeed (or torchrun, srun python, python) launch/train.py --config configs/x.yaml [key=value ...]."""

from dstrain.cluster.console import run_program
from dstrain.train import main

if __name__ == "__main__":
    run_program(main)
