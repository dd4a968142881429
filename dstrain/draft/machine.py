"""What this machine offers a run, as far as a login node can see it: GPUs, CPUs and memory. Imports no torch."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HIDDEN = ("", "-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES that show no GPU."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run may use."""

    num_gpus: int
    num_cpus: int
    memory_bytes: int | None
    """Of the host."""

    @property
    def has_gpu(self) -> bool:
        """Whether the run would compute on a GPU."""
        return self.num_gpus > 0

    def __str__(self) -> str:
        gpus = f"{self.num_gpus} GPUs" if self.num_gpus != 1 else "1 GPU"
        cpus = f"{self.num_cpus} CPU cores" if self.num_cpus != 1 else "1 CPU core"
        memory = f", {self.memory_bytes / 1e9:.0f} GB of memory" if self.memory_bytes else ""
        return f"{gpus if self.num_gpus else 'no GPU'}, {cpus}{memory}"


def look_at_machine(*, device: Literal["cpu", "cuda"] | None = None, devices: Path = Path("/dev")) -> Machine:
    """This machine; with `device` as if it had a GPU, or none."""
    found = len([*devices.glob("nvidia[0-9]*")]) or int((devices / "kfd").exists())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        found = 0 if visible in HIDDEN else min(found, len(visible.split(",")))
    if device is not None:
        found = 0 if device == "cpu" else max(1, found)
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        memory = None
    return Machine(found, len(os.sched_getaffinity(0)), memory)
