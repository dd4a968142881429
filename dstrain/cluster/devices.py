"""Which device a rank computes on: chosen by each rank, then checked by all ranks together.

A rank never takes the CPU because its GPUs are out of reach: that would train for days instead of hours without a word.
"""

import os
import socket
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from dstrain.cluster.environment import ProcessInfo
from dstrain.errors import UserError

Wanted = Literal["cpu", "cuda"] | None
"""`machine.device`; None takes a GPU where there is one."""

SLURM_GPUS = {"SLURM_GPUS_ON_NODE": ("", "0"), "SLURM_JOB_GPUS": ("",), "SLURM_STEP_GPUS": ("",)}
"""Slurm's variables, with their values in a job without GPUs. The first is a count; the others list numbers from 0 on."""
HIDING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
HIDDEN = ("", "-1", "NoDevFiles")
"""Values of these variables that show no GPU; the last is Slurm's, for a job without one."""
ON_PURPOSE = "to train on the CPU on purpose, set machine.device=cpu"


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a rank computes."""

    rank: int
    host: str
    gpu: str | None
    """An identifier of the GPU that no other GPU of its host has; None for a rank on the CPU."""
    visible: tuple[str, ...] = ()
    """All GPUs that the rank could have taken."""


def choose_device(
    process: ProcessInfo, *, wanted: Wanted = None, environment: Mapping[str, str] = os.environ
) -> torch.device:
    """The GPU of this rank, or the CPU where there is none or the CPU is wanted.

    Slurm, a pod or a wrapper may show each rank its own GPU only, which is then number 0.

    Raises:
        UserError: there are GPUs, but none that torch can use, or fewer than ranks on this node.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        _refuse_silent_cpu(wanted=wanted, environment=environment, launcher=process.launcher)
        return torch.device("cpu")
    if process.local_rank >= count > 1:
        raise UserError(
            f"LOCAL_RANK {process.local_rank} has no GPU: this node shows {count}; start at most {count} ranks per node"
        )
    device = torch.device("cuda", process.local_rank if count > 1 else 0)
    torch.cuda.set_device(device)
    return device


def find_gpu_sign(
    environment: Mapping[str, str], *, launcher: str = "python", devices: Path = Path("/dev")
) -> str | None:
    """What says that this machine has a GPU for this process, as words for a message; None if nothing does."""
    for name, nothing in SLURM_GPUS.items():
        if environment.get(name, "") not in nothing:
            return f"Slurm gave this job GPUs ({name}={environment[name]})"
    for name in HIDING:
        # the deepspeed launcher numbers as many as ranks, whether there are GPUs or not
        if launcher != "deepspeed" and environment.get(name, HIDDEN[0]) not in HIDDEN:
            return f"{name}={environment[name]}"
    for name in ("nvidia0", "kfd"):
        if (devices / name).exists():
            return f"its driver is loaded ({devices / name})"
    return None


def explain_no_gpu(environment: Mapping[str, str], *, problem: str | None) -> str:
    """Why torch can use no GPU and what to do, for a message. `problem` is torch's own, if it gave one."""
    build = torch.version.cuda or torch.version.hip
    if build is None:
        return f"this torch ({torch.__version__}) is a CPU build: install a build for your GPU, see https://pytorch.org"
    for name in HIDING:
        if environment.get(name, "shown") in HIDDEN:
            return (
                f"{name}={environment[name]!r} hides them: unset it, or in a Slurm job ask for GPUs (--gpus-per-node)"
            )
    if problem is not None:
        return f"torch ({torch.__version__}, built for {build}) says: {problem}"
    return f"torch ({torch.__version__}, built for {build}) finds none: compare the driver's version in nvidia-smi"


def _refuse_silent_cpu(*, wanted: Wanted, environment: Mapping[str, str], launcher: str) -> None:
    sign = find_gpu_sign(environment, launcher=launcher)
    if sign is None and wanted is None:
        return
    asked = "machine.device is cuda" if wanted == "cuda" else sign
    raise UserError(
        f"no GPU can be used, although {asked}; {explain_no_gpu(environment, problem=problem_of_torch())}; {ON_PURPOSE}"
    )


def problem_of_torch() -> str | None:
    """The first line of the error with which torch refuses its GPUs; None if it does not."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().split("\n")[0]
    return None


def take_seat(process: ProcessInfo, *, device: torch.device) -> Seat:
    """The seat of this rank."""
    host = socket.gethostname()
    if device.type != "cuda":
        return Seat(process.rank, host, None)
    visible = tuple(map(_identify, range(torch.cuda.device_count())))
    return Seat(process.rank, host, visible[device.index], visible)


def _identify(index: int) -> str:
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if shown.startswith("MIG-"):  # slices of one GPU have the identifier of the GPU
        return shown
    properties = torch.cuda.get_device_properties(index)
    return str(getattr(properties, "uuid", None) or f"GPU {index}")


def check_seats(seats: Sequence[Seat]) -> list[str]:
    """Warnings about GPUs without a rank.

    Raises:
        UserError: some ranks compute on the CPU and others on GPUs, or two ranks on the same GPU.
    """
    without = [seat for seat in seats if seat.gpu is None]
    if without and len(without) < len(seats):
        named = ", ".join(f"rank {seat.rank} on {seat.host}" for seat in without[:3])
        raise UserError(
            f"{len(without)} of {len(seats)} ranks have no GPU ({named} …): start ranks only where there are GPUs; {ON_PURPOSE}"
        )
    taken: dict[tuple[str, str], list[int]] = defaultdict(list)
    visible: dict[str, set[str]] = defaultdict(set)
    for seat in seats:
        if seat.gpu is not None:
            taken[seat.host, seat.gpu].append(seat.rank)
            visible[seat.host].update(seat.visible)
    for (host, gpu), ranks in taken.items():
        if len(ranks) > 1:
            raise UserError(
                f"ranks {ranks[0]} and {ranks[1]} share one GPU ({gpu} on {host}): start one rank per GPU, and let each rank "
                "see its own GPU or all of them"
            )
    used = {host: sum(where == host for where, _ in taken) for host in visible}
    return [
        f"{host} shows {len(gpus)} GPUs, of which {used[host]} have a rank: the others are idle"
        for host, gpus in visible.items()
        if len(gpus) > used[host]
    ]
