"""The rank, peers and launcher of this process, read from environment variables. Imports no torch.

The launchers: `deepspeed`, `torchrun`, `srun` (only SLURM_* variables), `mpirun` (only those of an MPI), `environment` for any
other that sets RANK and WORLD_SIZE, such as a training operator of Kubernetes, and plain `python`.
"""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dstrain.cluster.nodes import first_node
from dstrain.errors import UserError

CAUSE_VARIABLE = "DSTRAIN_CAUSE"
"""Has the reason why the ranks were started, set by the batch script."""
LAUNCH_VARIABLE = "DSTRAIN_LAUNCH"
"""How often the batch script has started the ranks again within one allocation, after nodes were lost; set by the script."""
LOOPBACK = "127.0.0.1"
MAX_PORT = 65535

LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LAUNCHERS = ("SLURM_", "TORCHELASTIC_", "GROUP_", "ROLE_", "OMPI_", "PMIX_", "PMI_", "MV2_", "PET_")
"""How the names of the variables begin by which launchers tell a process its place."""

MPI = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
)
"""Rank, world size, local rank and ranks on this node, as Open MPI, MVAPICH and MPICH's mpirun (also Intel's) name them."""


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process of a run. Ranks count from 0; `world_size` is the number of processes on all nodes."""

    rank: int
    local_rank: int
    world_size: int
    master_address: str
    master_port: int
    """0 if the ranks have to agree on a port themselves (rendezvous.py)."""
    launcher: str
    local_world_size: int = 1
    """Processes on this node; 1 if the launcher does not say."""
    launched_by: tuple[int, ...] = ()
    """Process ids of the launcher, nearest first, if this rank would outlive it; else empty."""
    known_from: str = "RANK and WORLD_SIZE"
    """The variables that say which rank this is, for messages."""

    @property
    def is_one_host(self) -> bool:
        """Whether all ranks are on this host, as far as the launcher says."""
        return self.local_world_size == self.world_size

    def as_environment(self) -> dict[str, str]:
        """The variables that torch.distributed and DeepSpeed read."""
        return {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.local_rank),
            "WORLD_SIZE": str(self.world_size),
            "MASTER_ADDR": self.master_address,
            "MASTER_PORT": str(self.master_port),
        }


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a program that is no rank."""
    return {
        name: value for name, value in environment.items() if name not in LAUNCHED and not name.startswith(LAUNCHERS)
    }


def read_process_info(environment: Mapping[str, str]) -> ProcessInfo:
    """The rank, peers and launcher of this process.

    Raises:
        UserError: a launcher's variables are incomplete, not numbers, or contradict each other.
    """
    process = _read(environment)
    _check_rank(process.rank, process.world_size, names=process.known_from)
    if process.local_world_size > 1:
        _check_rank(
            process.local_rank, process.local_world_size, names="LOCAL_RANK and LOCAL_WORLD_SIZE (or their like)"
        )
    if process.is_one_host and not has_agent_store(environment):
        return replace(process, master_address=LOOPBACK)  # where no other host can connect
    return process


def has_agent_store(environment: Mapping[str, str]) -> bool:
    """Whether torchrun's agent keeps the store in which the ranks meet, at the address that it names; else rank 0 opens one."""
    return environment.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)


def _check_rank(rank: int, size: int, *, names: str) -> None:
    if rank >= size:
        counts = f"ranks count from 0 to {size - 1}" if size else "there must be at least one"
        raise UserError(
            f"environment: {names} say that this is rank {rank} of {size}, but {counts}; start with deepspeed, torchrun, srun "
            "or mpirun, or unset these variables for a single process"
        )


def _read(environment: Mapping[str, str]) -> ProcessInfo:
    if "RANK" in environment or "WORLD_SIZE" in environment:
        return _launched_process(environment)
    is_step = "SLURM_STEP_ID" in environment and _number(environment, "SLURM_NTASKS") > 1
    for names in MPI:
        # Slurm sets PMI_* too, also for a single task: they only count where mpirun started another number of ranks
        is_slurms = environment.get(names[1]) == (environment["SLURM_NTASKS"] if is_step else "1")
        if names[0] in environment and not is_slurms:
            return _mpi_process(environment, names=names)
    # a batch script has SLURM_PROCID and SLURM_NTASKS too, but only srun starts a step of several tasks
    if is_step:
        return _slurm_process(environment)
    if (nodes := environment.get("PET_NNODES", "1")) != "1":
        raise UserError(
            f"environment: PET_NNODES={nodes} says that this is one of several nodes, but python started this process alone; "
            "start it with torchrun, which reads the PET_* variables, or unset them for a single process"
        )
    return ProcessInfo(
        rank=0, local_rank=0, world_size=1, master_address=LOOPBACK, master_port=free_port(), launcher="python"
    )


def _launched_process(environment: Mapping[str, str]) -> ProcessInfo:
    needed = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [key for key in needed if key not in environment]
    if missing:
        found = [key for key in ("RANK", "WORLD_SIZE") if key in environment]
        given = " and ".join(found)
        raise UserError(
            f"environment: {given} {'are' if len(found) > 1 else 'is'} set but not {' and '.join(missing)}; start with "
            f"deepspeed, torchrun or srun, or unset {given} for a single process"
        )
    local_world_size = _local_world_size(environment)
    if "LOCAL_RANK" not in environment and local_world_size > 1:
        raise UserError(
            f"environment: RANK is set but not LOCAL_RANK, and this node has {local_world_size} ranks; set LOCAL_RANK, which "
            "counts the ranks of a node from 0"
        )
    return ProcessInfo(
        rank=_number(environment, "RANK"),
        # a pod with one rank, as of Kubernetes' training operators, names none
        local_rank=_number(environment, "LOCAL_RANK") if "LOCAL_RANK" in environment else 0,
        world_size=_number(environment, "WORLD_SIZE"),
        master_address=environment["MASTER_ADDR"],
        master_port=_port(environment),
        launcher=(launcher := _launcher(environment)),
        local_world_size=local_world_size,
        known_from=f"RANK and WORLD_SIZE{_contradiction(environment) if launcher == 'environment' else ''}",
    )


def _contradiction(environment: Mapping[str, str]) -> str:
    """That an MPI counts another number of ranks, for messages: one of the two may be left from another shell."""
    for _, size, *_ in MPI:
        if environment.get(size, environment["WORLD_SIZE"]) != environment["WORLD_SIZE"]:
            return f", though {size} is {environment[size]},"
    return ""


def _mpi_process(environment: Mapping[str, str], *, names: tuple[str, str, str, str]) -> ProcessInfo:
    rank, size, local_rank, local_size = names
    world_size = _number(environment, size)
    _check_rank(_number(environment, rank), world_size, names=f"{rank} and {size}")
    is_one_node = environment.get(local_size) == environment.get(size)
    if not is_one_node and not {"MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        raise UserError(
            f"environment: {size} says that mpirun started {world_size} ranks, but not that all are on this node; set "
            "MASTER_ADDR to the host of rank 0 and MASTER_PORT to a free port there, for all ranks (Open MPI: mpirun -x "
            f"MASTER_ADDR=… -x MASTER_PORT=…), or unset {rank} and {size} for a single process"
        )
    return ProcessInfo(
        rank=_number(environment, rank),
        local_rank=_number(environment, local_rank) if local_rank in environment else 0,
        world_size=world_size,
        master_address=environment.get("MASTER_ADDR", LOOPBACK),
        master_port=_port(environment) if "MASTER_PORT" in environment else 0,
        launcher="mpirun",
        local_world_size=_number(environment, local_size) if local_size in environment else 1,
        known_from=f"{rank} and {size}",
    )


def _launcher(environment: Mapping[str, str]) -> str:
    if "TORCHELASTIC_RUN_ID" in environment:
        return "torchrun"
    return "deepspeed" if "CROSS_RANK" in environment else "environment"


def _slurm_process(environment: Mapping[str, str]) -> ProcessInfo:
    # rank 0 runs on the first node of the step, which may be smaller than the job
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    return ProcessInfo(
        rank=_number(environment, "SLURM_PROCID"),
        local_rank=_number(environment, "SLURM_LOCALID"),
        world_size=_number(environment, "SLURM_NTASKS"),
        master_address=environment.get("MASTER_ADDR") or first_node(nodes),
        # not computed from the job id: on a shared node that port may be taken by another job (rendezvous.py)
        master_port=_port(environment) if "MASTER_PORT" in environment else 0,
        launcher="srun",
        local_world_size=_local_world_size(environment),
        known_from="SLURM_PROCID and SLURM_NTASKS",
    )


def _local_world_size(environment: Mapping[str, str]) -> int:
    # the names of torchrun, DeepSpeed and Slurm, whose value looks like 4(x2),3
    for key in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "SLURM_STEP_TASKS_PER_NODE"):
        if leading := re.match(r"\d+", environment.get(key, "")):
            return int(leading[0])
    return 1


def _number(environment: Mapping[str, str], key: str) -> int:
    value = environment.get(key, "")
    if not value.isdecimal():
        raise UserError(
            f"environment: {key} must be a whole number ≥ 0, found {value!r}; start with deepspeed, torchrun or srun"
        )
    return int(value)


def _port(environment: Mapping[str, str]) -> int:
    port = _number(environment, "MASTER_PORT")
    if not 1 <= port <= MAX_PORT:
        raise UserError(f"environment: MASTER_PORT must be from 1 to {MAX_PORT}, found {port}")
    return port


def free_port() -> int:
    """A TCP port of this host that is free at present."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def read_start(environment: Mapping[str, str]) -> tuple[str, int, int]:
    """The Slurm job of this process as `cluster/job`, which is unique among clusters; its restarts; its launches since then.

    Returns `("", 0, 0)` outside a job.
    """
    job, restart = environment.get("SLURM_JOB_ID", ""), environment.get("SLURM_RESTART_COUNT", "0")
    if not job.isdecimal() or not restart.isdecimal():
        return "", 0, 0
    return f"{environment.get('SLURM_CLUSTER_NAME', '')}/{job}", int(restart), read_launch(environment)


def read_launch(environment: Mapping[str, str]) -> int:
    """How often the ranks were started again in this allocation; 0 if the batch script does not say."""
    launch = environment.get(LAUNCH_VARIABLE, "")
    return int(launch) if launch.isdecimal() else 0
