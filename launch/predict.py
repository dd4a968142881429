"""Uses a model: torchrun (or srun python, python) launch/predict.py MODEL [--input FILE] [--output FILE]."""

from dstrain.cluster.console import run_program
from dstrain.predict import main

if __name__ == "__main__":
    run_program(main)
