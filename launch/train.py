"""Starts a training run: deepspeed launch/train.py --config configs/x.yaml [key=value ...]; so do torchrun, srun, python."""

import sys

from dstrain.train import main

if __name__ == "__main__":
    sys.exit(main())
