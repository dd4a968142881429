#!/bin/sh
# torchrun ends with 1 whatever the code of its ranks was. This ends with the code of the run, such as 85, "start me again":
#   launch/torchrun.sh --nproc-per-node 2 -- --config configs/x.yaml [key=value ...]
here="$(dirname "$0")"
options=""
while [ "$#" -gt 0 ] && [ "$1" != "--" ]; do
  case "$1" in *[!A-Za-z0-9_.:,=/@-]*) echo "launch/torchrun.sh: torchrun's option '$1' has a character that it cannot pass on" >&2; exit 2 ;; esac
  options="$options $1"
  shift
done
if [ "$#" -eq 0 ]; then echo "usage: launch/torchrun.sh [options of torchrun] -- --config RECIPE [key=value ...]" >&2; exit 2; fi
shift
since="$(date +%s)"
# shellcheck disable=SC2086  each option is a word
torchrun $options "$here/train.py" "$@"
code=$?
exec python -m dstrain.run_folder.outcome --code "$code" --since "$since" -- "$@"
