#!/bin/sh
# A few rows, one process, no launcher: launch/debug.sh --config configs/x.yaml [--overfit 8] [key=value ...]
exec python "$(dirname "$0")/train.py" --debug "$@"
