"""What compiles: ninja, C and C++ compilers, nvcc. A run needs them for `machine.compile` and optional operators only."""

import os
import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dstrain.doctor.finding import Finding, note, ok
from dstrain.doctor.programs import Run

NEEDED_BY = "needed by machine.compile and by DeepSpeed's optional operators, and by nothing else"
_NUMBER = re.compile(r"\d+(?:\.\d+)+")


@dataclass(frozen=True, slots=True)
class Tools:
    """Versions of what compiles; None for what is not there."""

    ninja: str | None
    gcc: str | None
    gxx: str | None
    nvcc: str | None
    has_headers: bool
    """Whether the headers of this Python are there, which a compiled module includes."""


def ask_tools(run: Run) -> Tools:
    """The tools on the PATH; ninja also beside this interpreter, where a run finds it."""
    beside = str(Path(sys.executable).parent / "ninja")
    nvcc = os.path.join(os.environ["CUDA_HOME"], "bin", "nvcc") if os.environ.get("CUDA_HOME") else "nvcc"
    headers = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return Tools(
        ninja=_version(run, beside) or _version(run, "ninja"),
        gcc=_version(run, "gcc") or _version(run, "cc"),
        gxx=_version(run, "g++") or _version(run, "c++"),
        nvcc=_version(run, nvcc),
        has_headers=headers.is_file(),
    )


def judge_tools(tools: Tools, *, build: str | None) -> Iterator[Finding]:
    """What is missing, and whether nvcc fits the torch, by what that was built for, such as `CUDA 12.9`."""
    named = {"ninja": tools.ninja, "gcc": tools.gcc, "g++": tools.gxx}
    found = [f"{name} {version}" for name, version in named.items() if version]
    missing = [name for name, version in named.items() if not version]
    missing += [] if tools.has_headers else ["the headers of Python (python3-dev)"]
    if missing:
        text = f"missing: {', '.join(missing)}; {NEEDED_BY}"
        yield note("compilers", text, way_out="install them, or load the module of your site")
    if found:
        yield ok("compilers", ", ".join(found))
    kind, _, cuda = (build or "").partition(" ")
    if kind != "CUDA":
        return
    if tools.nvcc is None:
        yield note("nvcc", "none: DeepSpeed's optional CUDA operators cannot be built; dstrain uses none of them")
    elif tools.nvcc.split(".")[0] != cuda.split(".")[0]:
        way_out = f"set CUDA_HOME to a toolkit of CUDA {cuda.split('.')[0]} if you build DeepSpeed's optional operators"
        yield note("nvcc", f"it is of CUDA {tools.nvcc}, torch was built for {build}", way_out=way_out)
    else:
        yield ok("nvcc", f"CUDA {tools.nvcc}")


def _version(run: Run, program: str) -> str | None:
    """The number in what a program says of itself; of nvcc the one behind `release`."""
    done = run([program, "--version"])
    if done is None or done.code != 0:
        return None
    text = done.out.partition("release ")[2] or done.out.partition(")")[2] or done.out
    match = _NUMBER.search(text)
    return match[0] if match else None
