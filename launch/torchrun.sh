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

# A shell that waits for a foreground command keeps signals to itself, and as the first process of a container ignores them.
# torchrun has a session of its own, so that what a terminal sends reaches it once. It does not know USR1, and a shell lets
# commands in the background ignore INT: TERM, which saves as they do, stands for both.
asked=""
torchrun=""
pass_on() {
  asked="$1"
  [ -z "$torchrun" ] || kill -s "$asked" "$torchrun" 2>/dev/null
}
trap 'pass_on TERM' TERM INT USR1
trap 'pass_on HUP' HUP
# shellcheck disable=SC2086  each option is a word
setsid torchrun $options "$here/train.py" "$@" &
torchrun=$!
[ -z "$asked" ] || pass_on "$asked"
wait "$torchrun"
code=$?
while kill -0 "$torchrun" 2>/dev/null; do  # a signal has ended the wait, not torchrun
  wait "$torchrun"
  code=$?
done
python -m dstrain.run_folder.outcome --code "$code" --since "$since" -- "$@"
