#!/bin/sh
# Writes the locks of this folder: the exact version of every package, and the hashes of its files. `make lock` calls it.
# Versions stay where they still fit pyproject.toml and the *.in files; `make lock ARGS=--upgrade` takes the newest.
set -eu
cd "$(dirname "$0")"
options=$*
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT
all=$scratch/all.txt

lock() { # OUTPUT ARGUMENT...
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --output-file "$@"
}

without() { # LOCK...: the option that leaves out what these locks have
    sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package=\1/p' "$@"
}

lock build.txt $options build.in

# one resolution of all that a run needs, then written as three locks: torch is another on other machines, and only a torch
# for CUDA needs the packages of cuda.txt
cat run.txt torch.txt cuda.txt > "$all" 2>/dev/null || : # versions to stay with
lock "$all" $options ../pyproject.toml torch.in --constraint build.txt
grep -E '^(nvidia|cuda|triton)' "$all" > "$scratch/cuda-names.txt"
grep -E '^torch==' "$all" > "$scratch/torch-names.txt"
lock run.txt ../pyproject.toml --constraint "$all" $(without build.txt "$scratch"/*-names.txt)
lock cuda.txt torch.in --constraint "$all" $(without build.txt run.txt "$scratch/torch-names.txt")
rm -f torch.txt # uv would keep the hashes that are added below
lock torch.txt torch.in --constraint "$all" $(without build.txt run.txt cuda.txt)
# PyTorch publishes its CPU builds under the same version, with hashes of their own
sed -i '$s/$/ \\/' torch.txt
sed -n "s/^\([0-9a-f]*\)  torch-$(sed -n 's/^torch==//p' torch.in)+cpu-.*/    --hash=sha256:\1 \\\\/p" torch-cpu.sha256 | sed '$s/ \\$//' >> torch.txt

lock test.txt $options ../pyproject.toml --extra test --extra tensorboard --extra lora --extra ctranslate2 --extra langid --constraint build.txt --constraint "$all" $(without build.txt "$all")
lock bench.txt $options bench.in --constraint "$all" $(without build.txt "$all")
lock exports.txt $options exports.in torch.in $(without "$scratch"/*-names.txt)
lock uv.txt $options uv.in
