"""Trains: deepspeed (or torchrun, srun python, python) launch/train.py --config configs/x.yaml [key=value ...]."""

import sys

from dstrain.train import main

if __name__ == "__main__":
    sys.exit(main())
