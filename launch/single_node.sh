#!/bin/sh
# Trains on every GPU of this machine, or on one CPU process: launch/single_node.sh --config configs/x.yaml [key=value ...]
exec deepspeed --quiet --master_port "${MASTER_PORT:-29500}" "$(dirname "$0")/train.py" "$@"
